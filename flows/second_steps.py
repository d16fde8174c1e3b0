"""What may come before and after the student's training: continued pretraining; DPO and distillation. All off unless set."""

from dataclasses import fields, replace
from pathlib import Path

import duckdb

from flows.night import Night
from flows.people import measuring
from flows.shown import shown
from labels.files import read_manifest
from labels.normalise import normalise
from labels.tables import open_table, reading
from student.distil import Distillation, distil
from student.dpo import Preference, prefer, read_pairs
from student.near import near_duplicates
from student.pretrain import Pretraining, continue_pretraining, read_general
from student.recipe import Recipe

SPARE = 1.5
"""General text is read by characters and used by tokens: so much more of it is read than ours has."""


def pretrained(night: Night, recipe: Recipe) -> Recipe:
    """The recipe on a base that has read the shop's own text first, where the settings say so; else as it is."""
    s = night.settings.student.pretrain
    if not s.epochs:
        return recipe
    texts = pretraining_texts(night)
    characters = sum(map(len, texts))
    general = read_general(s.replay, round(characters * s.replay_share * SPARE)) if s.replay else []
    if not general:
        night.screen.say(
            "  [yellow]no general text is replayed:[/] what the base forgets of it is neither held back nor measured; "
            "name some by student.pretrain.replay"
        )
    pretraining = Pretraining(**{one.name: getattr(s, one.name) for one in fields(Pretraining)})
    with shown(night, "pretraining the base") as progress:
        base, trained = continue_pretraining(recipe, pretraining, texts, general, night.work / "bases", progress)
    found = read_manifest(base) or {}
    shop, kept = (_change(found[f"{of}_before"], found[f"{of}_after"]) for of in ("shop", "general"))
    night.screen.say(
        f"  {'pretrained' if trained else 'pretrained before'} on {found['tokens']:,} tokens of the shop's and "
        f"{found['replay_tokens']:,} of general text; perplexity on held-out shop text {shop}, on general text {kept}"
    )
    return replace(recipe, base=str(base), revision=None)


def pretraining_texts(night: Night) -> list[str]:
    """Catalogue titles and the night's queries, each once; nothing that measures, or is near it (invariant 6)."""
    s = night.settings.catalogue
    con = duckdb.connect()
    with reading("the catalogue", str(s.path)):
        titles = open_table(con, str(s.path), {"title": s.title}, "the catalogue").fetchall()
    texts = {" ".join(str(title).split()) for (title,) in titles if title} | set(night.queries()["query"].to_pylist())
    ordered = sorted(text for text in texts if text)
    near = near_duplicates([normalise(text) for text in ordered], measuring(night))
    return [text for text, close in zip(ordered, near, strict=True) if not close]


def after_training(night: Night, recipe: Recipe, adapter: Path, dataset: Path) -> Path:
    """The adapter after DPO and distillation, as the settings say; by default `adapter` itself."""
    return _distilled(night, recipe, _preferred(night, recipe, adapter, dataset), dataset)


def _preferred(night: Night, recipe: Recipe, adapter: Path, dataset: Path) -> Path:
    s = night.settings.student.dpo
    if not s.epochs:
        return adapter
    pairs = len(read_pairs(dataset))
    if pairs < s.least_pairs:
        night.screen.say(f"  no DPO: {pairs} preference pairs, {s.least_pairs} wanted (student.dpo.least_pairs)")
        return adapter
    preference = Preference(**{one.name: getattr(s, one.name) for one in fields(Preference)})
    with shown(night, "DPO on corrections") as progress:
        preferred, trained = prefer(night.task, recipe, preference, adapter, dataset, night.work / "adapters", progress)
    night.screen.say(f"  DPO {'on' if trained else 'before, on'} {pairs} preference pairs → {preferred.name}")
    return preferred


def _distilled(night: Night, recipe: Recipe, adapter: Path, dataset: Path) -> Path:
    s = night.settings.student.distil
    if not s.steps:
        return adapter
    distillation = Distillation(
        str(s.teacher), None, s.steps, s.learning_rate, s.batch, night.settings.student.max_tokens
    )
    with shown(night, "distilling on policy") as progress:
        distilled, trained = distil(
            night.task, recipe, distillation, adapter, dataset, night.work / "adapters", progress
        )
    night.screen.say(
        f"  distilled {'' if trained else 'before, '}in {s.steps} steps from {s.teacher} → {distilled.name}"
    )
    return distilled


def _change(before: float | None, after: float | None) -> str:
    return f"{before:.1f} → {after:.1f}" if before and after else "not measured"
