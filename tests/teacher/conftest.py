"""The tiny teacher, real, for several files: vLLM in this process, and vLLM's server on loopback."""

from pathlib import Path

import pytest

from flows.environment import prepare
from flows.settings import load_settings
from student.serve import served_student  # it serves any model folder
from teacher.engine import Sampling


@pytest.fixture(scope="session")
def teacher_settings():
    prepare(offline=True)
    return load_settings("laptop", {}, {}).teacher


@pytest.fixture(scope="session")
def offline_engine(teacher_settings):
    import llvmlite.binding  # noqa: F401 - as evals/ppi.py loads it, which vLLM stumbles over

    from teacher.engine_vllm import VllmEngine

    engine = VllmEngine(teacher_settings.model, None, Sampling(64), dict(teacher_settings.engine))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def teacher_url(teacher_settings, tmp_path_factory):
    flags = {name.replace("_", "-"): value for name, value in teacher_settings.engine.items() if name != "dtype"}
    flags["enable-prompt-tokens-details"] = True
    with served_student(Path(teacher_settings.model), tmp_path_factory.mktemp("served"), flags, "float32", 280) as url:
        yield f"{url}/v1"
