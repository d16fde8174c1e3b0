"""The leaner loss is the loss: TRL's own, in value and gradients."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.errors import PreflightError
from labels.semantic_roles import SemanticRoles
from student.base import load_base
from student.preflight import IGNORED
from student.sequences import tokens_of
from tests.student.training import recipe, shop_rows


@pytest.fixture(scope="module")
def base():
    return load_base(recipe())


@pytest.fixture(scope="module")
def rows(base):
    return tokens_of(SemanticRoles, shop_rows(24), [], base[1], 512)[0]


def trainer_of(model, tokenizer, rows, folder, share_prefix=False, **other):
    """A trainer whose adapter is not the zero it begins as: else half of its gradients are none."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig

    from student.prefix import StudentTrainer

    data = Dataset.from_dict(
        {
            "input_ids": [row.ids for row in rows],
            "labels": [[IGNORED] * row.prompt + row.ids[row.prompt :] for row in rows],
        }
    )
    config = SFTConfig(
        str(folder), per_device_train_batch_size=8, bf16=False, gradient_checkpointing=False, report_to="none",
        max_length=512 if other.get("packing") else None, use_cpu=True, **other,
    )  # fmt: skip
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    trainer = StudentTrainer(
        share_prefix=share_prefix, model=model, args=config, train_dataset=data, processing_class=tokenizer,
        peft_config=lora,
    )  # fmt: skip
    torch.manual_seed(1)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return trainer


def loss_and_gradients(trainer, loss_of, batch, count):
    trainer.model.zero_grad()
    trainer.model.train()
    loss = loss_of(trainer, trainer.model, dict(batch), num_items_in_batch=count)
    loss.backward()
    trained = [(name, weight) for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    return loss.item(), {name: weight.grad.clone() for name, weight in trained}


@pytest.mark.parametrize(
    ("how", "computed"),
    [({"share_prefix": True}, 0.5), ({"share_prefix": False}, 1.0), ({"packing": True}, 1.0)],
    ids=["share_prefix", "padded", "packing"],
)
def test_loss_and_gradients_are_those_of_trl(rows, tmp_path, how, computed):
    import torch
    from trl import SFTTrainer

    from student.prefix import StudentTrainer

    trainer = trainer_of(*load_base(recipe()), rows, tmp_path, **how)
    batch = next(iter(trainer.get_train_dataloader()))
    assert "position_ids" in batch or not batch["attention_mask"].all(), "rows differ in length"
    given = []
    trainer.model.get_input_embeddings().register_forward_pre_hook(lambda _, args: given.append(args[0].numel()))
    for count in (None, torch.tensor(123)):  # of a batch, and of an update of several
        ours, gradients = loss_and_gradients(trainer, StudentTrainer.compute_loss, batch, count)
        assert given[-1] <= computed * batch["input_ids"].numel(), "tokens that went through the model"
        theirs, wanted = loss_and_gradients(trainer, SFTTrainer.compute_loss, batch, count)
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert gradients.keys() == wanted.keys()
        for name, gradient in gradients.items():
            assert torch.allclose(gradient, wanted[name], rtol=1e-3, atol=1e-6), name


def test_a_packing_whose_rows_see_each_other_is_refused(base, rows, tmp_path):
    import torch

    trainer = trainer_of(*load_base(recipe()), rows, tmp_path, packing=True)
    batch = dict(next(iter(trainer.get_train_dataloader())))
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])  # with it transformers no longer tells rows apart
    with pytest.raises(PreflightError, match="the loss of a batch packed is"):
        trainer.compute_loss(trainer.model, batch)


def test_a_model_that_can_not_share_a_prefix_is_refused(base, rows, tmp_path):
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    _, tokenizer = base
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=4, initializer_range=1.0,
    )  # fmt: skip
    torch.manual_seed(0)  # its window is lost in a mask of ours
    trainer = trainer_of(MistralForCausalLM(config), tokenizer, rows, tmp_path, share_prefix=True)
    with pytest.raises(PreflightError, match=r"with a shared prefix is .* wanted them within"):
        trainer.compute_loss(trainer.model, dict(next(iter(trainer.get_train_dataloader()))))


ROWS = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.lists(st.integers(0, 2), min_size=1, max_size=3)),
    min_size=1,
    max_size=6,
)


@given(ROWS)
def test_in_the_shared_layout_each_label_sees_its_row_up_to_it_and_nothing_else(pairs):
    import torch

    from student.prefix import shared

    length = max(len(prompt + answer) for prompt, answer in pairs)
    filled = [(p + a, [IGNORED] * len(p) + a, length - len(p + a)) for p, a in pairs]
    batch = {
        "input_ids": torch.tensor([ids + [0] * room for ids, _, room in filled]),
        "labels": torch.tensor([labels + [IGNORED] * room for _, labels, room in filled]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * room for ids, _, room in filled]),
    }
    beginnings = {tuple(ids[: end + 1]) for ids, _, _ in filled for end in range(len(ids))}
    layout = shared(batch, width=10_000)
    if layout is None:
        assert len(beginnings) == len(pairs) * length, "there was something to save"
        return
    tokens = layout.inputs["input_ids"][0]
    assert len(tokens) == len(beginnings), "every beginning stands once"
    sees, position = layout.inputs["attention_mask"][0, 0], layout.inputs["position_ids"][0]
    seen = []
    for place, target in zip(layout.places.tolist(), layout.targets.tolist(), strict=True):
        visible = sees[place].nonzero().flatten()
        visible = visible[position[visible].argsort()]
        assert position[visible].tolist() == list(range(len(visible)))
        seen.append((tokens[visible].tolist(), target))
    wanted = [([*prompt, *answer[:end]], token) for prompt, answer in pairs for end, token in enumerate(answer)]
    assert seen == wanted
