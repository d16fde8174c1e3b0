import subprocess
import sys

import pytest

from flows.settings import PROFILES, ROOT, Settings, load_settings, parse_sets
from labels.errors import SettingsError
from labels.semantic_roles import SemanticRoles

SHIPPED = sorted(path.stem for path in PROFILES.glob("*.toml"))


def load(profile="laptop", changes=None, environment=None):
    return load_settings(profile, changes, environment or {})


def refused(*args, **named):
    with pytest.raises(SettingsError) as caught:
        load(*args, **named)
    return str(caught.value)


def test_the_three_profiles_are_shipped():
    assert SHIPPED == ["laptop", "production", "single-gpu"]


@pytest.mark.parametrize("profile", SHIPPED)
def test_every_shipped_profile_loads_and_names_a_task(profile):
    settings = load(profile)
    assert settings.profile == profile
    assert settings.task_class() is SemanticRoles
    assert settings.folder.is_absolute()


def test_production_states_the_real_models():
    settings = load("production")
    assert settings.teacher.model == "meta-llama/Llama-3.1-405B-Instruct-FP8"
    assert settings.teacher.engine["tensor_parallel_size"] == 8
    assert settings.student.base == "meta-llama/Llama-3.1-8B-Instruct"
    assert settings.student.dtype == "bfloat16"
    assert not settings.student.quantise_base
    assert settings.log.half_life_days
    assert not settings.review.simulated
    assert not load("single-gpu").review.simulated


@pytest.mark.parametrize("profile", SHIPPED)
def test_every_profile_loads_safetensors_alone_and_trusts_no_remote_code(profile):
    settings = load(profile)
    assert settings.teacher.engine["load_format"] == settings.student.server["load-format"] == "safetensors"
    text = (PROFILES / f"{profile}.toml").read_text()
    assert "trust" not in text.lower()


def test_the_laptops_models_are_found_from_any_folder(tmp_path):
    code = "from flows.settings import load_settings; print(load_settings('laptop').student.base)"
    path = {"PYTHONPATH": str(ROOT), "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == str(ROOT / "demo/models/student-base")


def test_a_flag_beats_the_environment_and_the_environment_the_profile():
    environment = {"STILLHOUSE_TEACHER__FACTS": "7", "STILLHOUSE_SEED": "5", "OTHER_SEED": "9"}
    assert (load().teacher.facts, load().seed) == (3, 0)
    changed = load(environment=environment)
    assert (changed.teacher.facts, changed.seed) == (7, 5)
    both = load(changes={"teacher.facts": 9}, environment=environment)
    assert (both.teacher.facts, both.seed) == (9, 5)
    assert both.teacher.max_tokens == load().teacher.max_tokens


def test_without_an_environment_given_the_processs_own_counts():
    code = "from flows.settings import load_settings; print(load_settings().teacher.facts)"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"STILLHOUSE_TEACHER__FACTS": "11"}, capture_output=True, text=True
    )
    assert ran.stdout.strip() == "11", ran.stderr


def test_an_unknown_key_is_refused_with_the_nearest_valid_one_wherever_it_stands(tmp_path):
    profile = tmp_path / "mine.toml"
    profile.write_text((PROFILES / "laptop.toml").read_text() + "\n[gat]\nteacher_f1 = 0.5\n")
    assert "there is no setting 'gat'; did you mean 'gate'?" in refused(str(profile))
    profile.write_text((PROFILES / "laptop.toml").read_text().replace("head_share", "head_shar"))
    assert "there is no setting 'cache.head_shar'; did you mean 'cache.head_share'?" in refused(str(profile))
    wanted = "there is no setting 'teacher.modell'; did you mean 'teacher.model'?"
    assert wanted in refused(environment={"STILLHOUSE_TEACHER__MODELL": "x"})
    assert wanted in refused(changes={"teacher.modell": "x"})


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("cache.head_share", 1.5, "cache.head_share: Input should be less than or equal to 1, got 1.5"),
        ("teacher.facts", "many", "teacher.facts: Input should be a valid integer"),
        ("log.half_life_days", 0, "log.half_life_days: Input should be greater than 0"),
        ("student.dtype", "int8", "student.dtype: Input should be 'bfloat16', 'float16' or 'float32'"),
        ("teacher", "x", "teacher: "),
        ("seed.x", 1, "seed: "),
        ("profile.x", 1, "profile is not a section"),
    ],
)
def test_a_wrong_value_is_refused_naming_its_key(key, value, says):
    assert says in refused(changes={key: value})


def test_a_wrong_profile_is_refused_with_the_known_ones(tmp_path):
    assert refused("lapto") == (
        "no profile 'lapto'; wanted one of laptop, production, single-gpu, or the path of a .toml file"
    )
    assert "no profile" in refused(str(tmp_path / "gone.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("[teacher\n")
    assert f"profile {broken} is not valid TOML" in refused(str(broken))
    broken.write_bytes(b'task = "caf\xe9"')
    assert f"profile {broken} is not valid TOML" in refused(str(broken))
    broken.write_text("seed = 1\n")
    assert "teacher: Field required" in refused(str(broken))


def test_flags_are_toml_where_they_can_be_and_text_otherwise():
    given = ["teacher.facts=5", "log.query=search term", "review.simulated=true", "catalogue.brand = ''"]
    given += ["cache.redis_url=redis://h:1/0?a=b"]
    assert parse_sets(given) == {
        "teacher.facts": 5, "log.query": "search term", "review.simulated": True, "catalogue.brand": "",
        "cache.redis_url": "redis://h:1/0?a=b",
    }  # fmt: skip
    with pytest.raises(SettingsError, match="wanted key=value, such as --set log"):
        parse_sets(["log.query"])


@pytest.mark.parametrize(
    "task", ["nowhere:Task", "labels.semantic_roles:Gone", "labels.semantic_roles", "json:loads", ""]
)
def test_a_task_that_is_none_is_refused(task):
    with pytest.raises(SettingsError, match="task = "):
        load(changes={"task": task}).task_class()


def test_a_task_of_ones_own_needs_no_registration():
    assert load(changes={"task": "demo.other_tasks:Trip"}).task_class().name == "trip"


def test_settings_are_frozen_and_survive_being_written_down():
    settings = load("production")
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 3
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_the_ground_floor_and_the_settings_load_without_a_heavy_library():
    rooms = [f"labels.{path.stem}" for path in (ROOT / "labels").glob("*.py") if path.stem != "__init__"]
    code = f"import sys, flows.settings, {', '.join(rooms)}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert {"labels", "flows", "pydantic", "duckdb"} <= loaded
    assert not loaded & {"torch", "vllm", "faiss", "prefect", "transformers", "trl", "sklearn", "teacher", "student"}
