"""The wheels of the server and of the Python client, and environments to install them into.

`stages` reads the Dockerfile, which builds the server's wheel too. Wheels are built from copies,
because a build leaves its traces beside the source.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import uv

from tests.services import LAUNCHER

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "clients" / "python"
CACHE = ROOT / "var" / "cache"
BUILD_TIMEOUT = 200.0  # seconds
INSTALL_TIMEOUT = 200.0  # seconds; a slow index takes long
# setuptools is that of this environment.
BUILD_OPTIONS = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]


def copy(source: Path, target: Path) -> None:
    """Copy a file or a directory, without what Python leaves beside its modules."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def build_wheel(source: Path, home: Path) -> Path:
    """Build the wheel of a project into an empty directory; return its path."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel"]
    words = [*command, *BUILD_OPTIONS, "-w", str(home), str(source)]
    subprocess.run(words, check=True, timeout=BUILD_TIMEOUT)
    (found,) = home.glob("*.whl")
    return found


def build_client(home: Path) -> Path:
    """Build the wheel of the Python client below an empty directory."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "imgo_client"):
        copy(CLIENT / name, home / "source" / name)
    return build_wheel(home / "source", home)


def build_server(home: Path) -> Path:
    """Build the server's wheel below an empty directory, from what the Dockerfile copies."""
    for name in stages()["wheel"].copied:
        copy(ROOT / name, home / "source" / name)
    return build_wheel(home / "source", home)


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a program is given: nothing of this checkout, and no services."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONUNBUFFERED": "1", **more}


def run(*words: str | Path, cwd: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in a directory, whatever its status is."""
    return subprocess.run(
        words,
        cwd=cwd,
        env=environment(cwd, **more),
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT,
        check=False,
    )


def install(home: Path, *requirements: str) -> Path:
    """Make an environment that has these and what they require; return its `bin`."""
    venv = home / "venv"
    python = venv / "bin" / "python"
    pins = ("--constraint", ROOT / "requirements.txt")
    for words in (
        ["venv", "--python", sys.executable, venv],
        ["pip", "install", "--python", python, *pins, *requirements],
    ):
        # The index, its certificates and proxies are those of the machine.
        done = subprocess.run(
            [uv.find_uv_bin(), "--no-config", "--cache-dir", CACHE / "uv-packages", "-q", *words],
            env={name: text for name, text in os.environ.items() if name != "VIRTUAL_ENV"},
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return venv / "bin"


def start(
    *words: str | Path, cwd: Path, out: Path, log: Path, **more: str
) -> "subprocess.Popen[bytes]":
    """Start a program in a directory. It is killed when this process ends, however that happens."""
    orphan = map(str, (os.getpid(), -1, -1, int(signal.SIGKILL)))
    with out.open("wb") as stdout, log.open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, *orphan, *words],
            cwd=cwd,
            env=environment(cwd, **more),
            stdout=stdout,
            stderr=stderr,
        )


@dataclass(frozen=True)
class Stage:
    """One stage of the Dockerfile: its instructions in order, as (name, rest of the line)."""

    instructions: list[tuple[str, str]]

    def rests(self, name: str) -> list[str]:
        """Return what follows each instruction of this name."""
        return [rest for found, rest in self.instructions if found == name]

    @property
    def copied(self) -> list[str]:
        """Return the names that are copied from the checkout."""
        lines = [rest.split() for rest in self.rests("COPY") if not rest.startswith("--from=")]
        return [name for *names, _ in lines for name in names]


def stages() -> dict[str, Stage]:
    """Return the Dockerfile's stages by their names; the last one's is ""."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    found: dict[str, Stage] = {}
    current = Stage([])
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition(" ")
        if name == "FROM":
            current = Stage([])
            found[rest.partition(" AS ")[2]] = current
        current.instructions.append((name, rest.strip()))
    return found
