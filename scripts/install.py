"""Make `.venv` and install the whole lock into it. `make install` runs this; so do `make demo` and `make test`.

    python3 scripts/install.py          # the lock for this machine
    MACHINE=cpu make install            # the CPU lock, GPU or not
    make install PYTHON=python3.12      # a Python of your choice

Everything that can be known to be missing is said before the first byte is downloaded. The stamp is
written last: a second run reads it and does nothing, an interrupted one is redone from the start.
Standard library only, and readable by old Pythons, since saying "too old" is one of its jobs.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("python3.11", "python3.12", "python3")  # first the one that the locks are resolved and tried on
SERVED = ((3, 11), (3, 12))
GLIBC = (2, 31)  # the oldest one that every wheel in the locks takes
NEEDED_GB = {"cpu": 6, "gpu": 16}  # on disk, with room for what is being unpacked
DRIVER = 580  # the oldest NVIDIA driver that runs CUDA 13
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


class SetupError(Exception):
    """What is missing and what to do about it, in words for the person at the terminal."""


@dataclass(frozen=True)
class Machine:
    """What the set-up looks at before it starts. A test hands in another one."""

    system: str = "Linux"
    processor: str = "x86_64"
    glibc: tuple[int, ...] = GLIBC
    avx2: bool = True
    libnuma: bool = True
    gpu: bool = False
    driver: int = DRIVER
    free_gb: float = 100.0

    @property
    def kind(self) -> str:
        """Which lock this machine takes."""
        return "gpu" if self.gpu else "cpu"


def look() -> Machine:
    """Read the facts of this machine."""
    system, processor = platform.system(), platform.machine()
    if system != "Linux":
        return Machine(system=system, processor=processor)
    name, version = platform.libc_ver()
    glibc = tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else ()
    try:
        avx2 = " avx2 " in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        avx2 = True
    gpu, driver = _gpu()
    return Machine(system, processor, glibc, avx2, _loads("libnuma.so.1"), gpu, driver, _free_gb())


def _loads(library: str) -> bool:
    import ctypes

    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _free_gb() -> float:
    return shutil.disk_usage(ROOT).free / 1e9


def _gpu() -> tuple[bool, int]:
    wanted = os.environ.get("MACHINE", "").strip()
    if wanted not in ("", "cpu", "gpu"):
        raise SetupError(f"MACHINE is {wanted!r}. It may be cpu or gpu; leave it out to have the machine looked at.")
    if wanted == "cpu" or (not wanted and shutil.which("nvidia-smi") is None):
        return False, DRIVER
    if not wanted and " " not in _nvidia_smi("-L"):
        return False, DRIVER
    version = re.match(r"\d+", _nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader"))
    return True, int(version.group()) if version else DRIVER


def _nvidia_smi(*arguments: str) -> str:
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def check_machine(machine: Machine, *, fresh: bool = True) -> None:
    """Raise SetupError if the locks can't serve this machine; `fresh` asks for the disk space of a whole install."""
    if (machine.system, machine.processor) != ("Linux", "x86_64"):
        raise SetupError(
            f"Stillhouse installs on Linux x86-64; this is {machine.system} {machine.processor}.\n"
            "The engine (vLLM) has no build for it in our locks. Use a Linux x86-64 machine, virtual machine or\n"
            "container (docker run --platform linux/amd64 -it python:3.12-bookworm), and run make there."
        )
    if machine.glibc < GLIBC:
        have = f"glibc {'.'.join(map(str, machine.glibc))}" if machine.glibc else "another C library (musl?)"
        raise SetupError(
            f"The wheels need glibc {GLIBC[0]}.{GLIBC[1]} or newer; this machine has {have}.\n"
            "Use Debian 11, Ubuntu 20.04, or anything newer."
        )
    if machine.kind == "cpu" and not machine.avx2:
        raise SetupError("vLLM's CPU build needs a processor with AVX2, and this one does not report it.")
    if machine.kind == "cpu" and not machine.libnuma:
        raise SetupError(
            "vLLM's CPU build needs the system library libnuma.so.1, which is not there. As root:\n"
            "    apt-get install libnuma1        (Fedora: dnf install numactl-libs)"
        )
    if machine.kind == "gpu" and machine.driver < DRIVER:
        raise SetupError(
            f"There is an NVIDIA GPU, but its driver is {machine.driver}; CUDA 13 needs {DRIVER} or newer.\n"
            "Update the driver, or install for the CPU:  make install MACHINE=cpu"
        )
    if fresh and machine.free_gb < NEEDED_GB[machine.kind]:
        raise SetupError(
            f"The install needs {NEEDED_GB[machine.kind]} GB of free disk; there are {machine.free_gb:.1f} GB here.\n"
            "Free some, or clone to a larger disk."
        )


def choose_python() -> str:
    """The first suitable Python among $PYTHON, or python3.11, python3.12, python3; SetupError if there is none."""
    asked = os.environ.get("PYTHON", "").strip()
    seen = []
    for name in (asked,) if asked else PYTHONS:
        problem = _unsuitable(name)
        if not problem:
            return name
        seen.append(f"    {name:<12} {problem}")
    raise SetupError(
        "Stillhouse needs Python 3.11 or 3.12 with its venv module. Looked at:\n"
        + "\n".join(seen)
        + "\nOn Debian or Ubuntu, as root:  apt-get install python3-venv   (or python3.12-venv)\n"
        "Without root:  install one with uv or pyenv, then  make PYTHON=/path/to/python3.12"
    )


def _unsuitable(python: str) -> str:
    probe = "import sys; print(*sys.version_info[:2]); import venv, ensurepip; print('venv')"
    try:
        done = subprocess.run([python, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "not found"
    words = done.stdout.split()
    if len(words) < 2:
        return "does not run"
    version = (int(words[0]), int(words[1]))
    if version not in SERVED:
        return f"is Python {version[0]}.{version[1]}; the locks serve 3.11 and 3.12"
    if "venv" not in words:
        return f"is Python {version[0]}.{version[1]} without venv: apt-get install python{version[0]}.{version[1]}-venv"
    return ""


def pins(lock: Path) -> dict[str, str]:
    """The lock as name -> pin, in its own order."""
    lines = [line.strip() for line in lock.read_text(encoding="utf-8").splitlines()]
    return {line.split("==")[0]: line for line in lines if line and not line.startswith("#")}


class Progress:
    """One line that moves in a terminal, or one line every few seconds in a log, from pip's own output."""

    def __init__(self, lock: dict[str, str], site_packages: Path) -> None:
        """Count against `lock`; what is unpacked already is seen in `site_packages`."""
        self.lock, self.site_packages = lock, site_packages
        self.seen: set[str] = set()
        self.now, self.size, self.unpacking = "", "", False
        self.moving = sys.stdout.isatty()
        self.every = 0.2 if self.moving else 15.0
        self.started = self.shown = time.monotonic()

    def read(self, line: str) -> None:
        """Take one line that pip printed."""
        found = re.match(r"(?:Collecting|Requirement already satisfied:) ([\w.-]+)|Processing .*/([^/-]+)-", line)
        if found:
            self.now, self.size = _normal(found[1] or found[2]), ""
            self.seen.add(self.now)
        elif line.startswith("Progress "):
            done, total = (int(word) / 1e6 for word in line.split()[1:4:2])
            self.size = f" {done:.0f} of {total:.0f} MB" if total > 5 else ""
        elif line.startswith("$ pip"):
            self.unpacking = False
        elif line.startswith("Installing collected packages"):
            self.unpacking = True

    def show(self, *, last: bool = False) -> None:
        """Print where the install stands, if it is time to."""
        now = time.monotonic()
        if not last and now - self.shown < self.every:
            return
        self.shown = now
        if self.unpacking:
            folders = self.site_packages.glob("*.dist-info")
            there = sorted((f.stat().st_mtime, _normal(f.name.split("-")[0])) for f in folders)
            names = [name for _, name in there if name in self.lock]
            verb, count, name = "unpacking", len(names), names[-1] if names else ""
        else:
            verb, count, name = "fetching", len(self.seen & set(self.lock)), self.now + self.size
        text = f"  {verb:<9} {count:>3}/{len(self.lock)}  {now - self.started:4.0f} s  {name}"
        if self.moving:
            print("\r" + text[: shutil.get_terminal_size().columns - 1].ljust(72), end="", flush=True)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """End the moving line."""
        if self.moving:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", end="", flush=True)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pip(venv: Path, *arguments: str, progress: Progress | None = None) -> int:
    """Run pip in the venv, its output in `.venv/install.log`; returns its exit status."""
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--no-deps", "--no-input", *arguments]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
    log_path = venv / "install.log"
    with log_path.open("a", encoding="utf-8") as log:
        start = log.tell()
        log.write("$ pip " + " ".join(command[3:]) + "\n")
        log.flush()
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=venv.parent)
        # pip is silent while it unpacks, so the log is followed by the clock, not by the line.
        with log_path.open(encoding="utf-8", errors="replace") as follow:
            follow.seek(start)
            tail, status = "", None
            while status is None:
                try:
                    status = child.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    pass
                except KeyboardInterrupt:
                    child.send_signal(signal.SIGINT)
                    child.wait()
                    raise
                *lines, tail = (tail + follow.read()).split("\n")
                if progress:
                    for line in lines:
                        progress.read(line.strip())
                    progress.show()
    return status


def install(root: Path, machine: Machine) -> None:
    """Bring `root/.venv` to what the lock says; nothing at all if it is there already."""
    venv, lock_path = root / ".venv", root / "requirements" / f"{machine.kind}.txt"
    stamp, marker = venv / "stillhouse-installed", venv / "stillhouse-installing"
    digest = hashlib.sha256(lock_path.read_bytes() + (root / "pyproject.toml").read_bytes()).hexdigest()
    wanted = f"{machine.kind} {root} {digest}\n"
    had = stamp.read_text(encoding="utf-8") if stamp.exists() else ""
    usable = (venv / "bin" / "python").exists()
    if usable and had == wanted and not marker.exists():
        return
    # Half a venv, one of the other kind, or one that was moved with the folder, is not worth mending.
    moved = bool(had) and had.rsplit(" ", 1)[0] != wanted.rsplit(" ", 1)[0]
    rebuild = marker.exists() or moved or (venv.exists() and not usable)
    check_machine(machine, fresh=rebuild or not venv.exists())
    python = choose_python() if rebuild or not venv.exists() else ""
    if not python and (problem := _unsuitable(str(venv / "bin" / "python"))):
        raise SetupError(f"The Python in {venv.name} {problem}.\nRemove that folder (make clean) and run make again.")
    if rebuild:
        print(f"{venv.name} is unfinished or was made for another machine or folder: making it anew.", flush=True)
        shutil.rmtree(venv)
    venv.mkdir(exist_ok=True)
    marker.touch()
    stamp.unlink(missing_ok=True)
    (venv / "install.log").unlink(missing_ok=True)

    lock = pins(lock_path)
    size = {"cpu": "about 1 GB to fetch, 4.5 GB on disk", "gpu": "several GB to fetch"}[machine.kind]
    print(f"Installing {len(lock)} packages from requirements/{lock_path.name} into .venv ({size}).", flush=True)
    started = time.monotonic()
    if python and subprocess.run([python, "-m", "venv", str(venv)], check=False).returncode:
        raise SetupError(f"{python} -m venv failed. On Debian or Ubuntu, as root:  apt-get install python3-venv")
    site_packages = next(iter(venv.glob("lib/python3*/site-packages")), venv)
    _step(marker, "pip itself", pip(venv, lock["pip"]))
    progress = Progress(lock, site_packages)
    raw = ("--progress-bar", "raw", "--only-binary", ":all:")
    if "+cpu" in lock["torch"]:
        # Only this one package comes from PyTorch's own index. Without retries, a machine that can't reach
        # it goes on in seconds to the folders and indexes of its own pip configuration.
        extra = ("--extra-index-url", TORCH_INDEX, lock["torch"])
        status = pip(venv, *raw, "--retries", "0", "--timeout", "10", *extra, progress=progress)
        if status > 0:  # perhaps only a hiccup: once more, patiently
            status = pip(venv, *raw, *extra, progress=progress)
        hint = (
            f"{lock['torch']} comes from {TORCH_INDEX}. If this machine may not reach it, put the wheel in a\n"
            "folder and name that folder:  PIP_FIND_LINKS=/path/to/folder make install"
        )
        _step(marker, lock["torch"], status, hint, progress)
    status = pip(venv, *raw, "-r", str(lock_path), progress=progress)
    _step(marker, "the packages", status, "What was fetched is kept; run make again to go on.", progress)
    _step(marker, "stillhouse", pip(venv, "--no-build-isolation", "-e", str(root)), progress=progress)
    progress.close()
    marker.unlink()
    stamp.write_text(wanted, encoding="utf-8")
    print(f"Installed {len(lock)} packages in {time.monotonic() - started:.0f} s.", flush=True)


def _step(marker: Path, what: str, status: int, hint: str = "", progress: Progress | None = None) -> None:
    if status == 0:
        return
    if progress:
        progress.close()
    if status > 0:  # pip ended by itself and in order, so the venv is whole; a killed one leaves the marker
        marker.unlink(missing_ok=True)
    log = marker.parent / "install.log"
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if not line.startswith("Progress ")]
    raise SetupError(
        "\n".join(["pip could not install " + what + ". Its last words:", *(f"    {line}" for line in lines[-8:])])
        + (f"\n{hint}" if hint else "")
        + f"\nAll it said: {log.parent.name}/{log.name}"
    )


def main(root: Path = ROOT, machine: Machine | None = None) -> int:
    """Install, or say in one message why not."""
    try:
        machine = machine or look()
        if machine.system != "Linux":
            check_machine(machine)
        import fcntl

        # Two makes at once: the second waits, then finds everything done.
        with (root / "pyproject.toml").open() as guard:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("Another set-up is running in this folder; waiting for it.", flush=True)
                fcntl.flock(guard, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks
            install(root, machine)
    except SetupError as error:
        print(f"\nSet-up stopped. {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nSet-up interrupted. Run make again: it starts over with what was already fetched.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
