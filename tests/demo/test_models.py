"""The shipped models are what their cards say: small, ordinary, and new to the demo's brands."""

import pytest

from demo.brands import side_of
from demo.shop import make_shop
from flows.settings import ROOT
from labels.semantic_roles import SemanticRoles

FOLDER = ROOT / "demo/models"
MODELS = ["teacher", "student-base"]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER / "teacher")


def test_no_shop_the_models_learned_on_names_a_brand_of_the_demo():
    from demo.examples import pretraining_shops
    from demo.models import FIRST_SEED, QUERIES, SHOPS

    demo = {word for name in make_shop().catalogue["brand"].to_pylist() for word in name.split()}
    own = {word for word in demo if side_of(word) == "demo"}
    assert len(own) > 100
    for first in (FIRST_SEED, FIRST_SEED + SHOPS // 2, FIRST_SEED + SHOPS - 1):
        shop = next(pretraining_shops(1, first, QUERIES))
        brands = {word for name in shop.catalogue["brand"].to_pylist() for word in name.split()}
        asked = {word for row in shop.pool.to_pylist() for word in row["brand"].split()}
        assert not (brands | asked) & own
        assert not {name for name in brands | asked if side_of(name) == "demo"}


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_is_an_ordinary_llama_folder(name):
    from transformers import LlamaConfig

    folder = FOLDER / name
    assert LlamaConfig.from_pretrained(folder).architectures == ["LlamaForCausalLM"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= {
        path.name for path in folder.iterdir()
    }
    assert not [path for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pkl", ".py"}]


def test_the_weights_together_are_small():
    assert sum((FOLDER / name / "model.safetensors").stat().st_size for name in MODELS) < 7_000_000


def test_teacher_and_student_share_one_tokenizer():
    one, two = ((FOLDER / name / "tokenizer.json").read_bytes() for name in MODELS)
    assert one == two


def test_the_constant_pieces_of_an_answer_are_one_token_each(tokenizer):
    from demo.models import TASKS
    from demo.tokenizer import scaffolding

    for piece in (piece for task in TASKS for piece in scaffolding(task)):
        assert len(tokenizer(piece, add_special_tokens=False)["input_ids"]) == 1, piece


def test_an_example_is_the_prompt_the_server_renders_and_then_the_answer(tokenizer):
    from demo.examples import encode, shop_asked

    asked = shop_asked(make_shop(queries=200), 0)[:20]
    for (_, _, gold), example in zip(asked, encode(asked, tokenizer), strict=True):
        text = tokenizer.decode(example.ids[example.answer :], skip_special_tokens=True)
        assert SemanticRoles.parse(text).items() == gold.items()
        assert example.ids[-1] == tokenizer.eos_token_id
        assert tokenizer.convert_ids_to_tokens(example.ids[example.prefix - 1]) == "<|user|>"
