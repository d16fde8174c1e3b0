"""Stage: the student. Its dataset, its training in as many rounds as the settings allow, its merge."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flows.fit import fit, quiet_libraries, recipe_of
from flows.night import Night
from flows.people import answers_of, measuring
from flows.review import places
from flows.rounds import Trained, calibrated, dev_split, train_in_rounds
from flows.second_steps import pretrained
from labels.files import read_json, read_manifest, write_json
from labels.records import Label
from student.dataset import Dataset, build_dataset
from student.extras import Extras, extend_dataset
from student.selection import Selection, least_sure

ROUNDS = "rounds.json"


def train_student(night: Night, parent: str | None) -> Path:
    """The folder of the merged student trained on the night's labels; `parent` is the student served now."""
    quiet_libraries()
    dev = dev_split(night)
    dataset = dataset_of_night(night, night.labels, Selection(**night.settings.student.data.model_dump()), dev)
    say_dataset(night, dataset)
    recipe = pretrained(night, recipe_of(night))

    def train(extras: Extras) -> Trained:
        folder = extend_dataset(dataset.folder, extras, night.work / "datasets")
        facts: dict[str, Any] = read_manifest(folder) or {}
        return Trained(fit(night, recipe, folder, parent), facts["rows"], facts["pairs"])

    done = train_in_rounds(night, dev, train)
    write_json(night.folder / ROUNDS, {"rounds": [one.to_json() for one in done.rounds]})
    return done.student


def rounds_of(night: Night) -> list[dict[str, Any]]:
    """Every round there was, where there was more than one training to choose from."""
    found: list[dict[str, Any]] = (read_json(night.folder / ROUNDS) or {"rounds": []})["rounds"]
    return found


def dataset_of_night(night: Night, labels: Sequence[Label], selection: Selection, dev: Iterable[str] = ()) -> Dataset:
    """The dataset of these labels and all that people answered; nothing that measures, nor the `dev` queries."""
    place, chance = places(night), calibrated(night)
    return build_dataset(
        night.task,
        labels,
        answers_of(night),
        measuring(night) | set(dev),
        night.work / "datasets",
        selection=selection,
        traffic={query: traffic for query, (_, traffic) in place.items()},
        bands={query: band for query, (band, _) in place.items()},
        confidence=lambda label: chance(least_sure(label)),
        seed=night.settings.seed,
    )


def say_dataset(night: Night, dataset: Dataset) -> None:
    """What is in it, what is not, and what that may cost."""
    people = f"{dataset.verified} verified and {dataset.corrected} of them corrected by people"
    left_out = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in dataset.left_out.items() if count)
    replay = f", {dataset.replay:,} general rows beside" if dataset.replay else ""
    night.screen.say(f"  {dataset.rows:,} rows ({people}){replay}; left out: {left_out or 'none'}")
    for warning in dataset.kept.warnings:
        night.screen.say(f"  [yellow]{warning}[/]")
