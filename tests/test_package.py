"""The wheel: it has all that a server needs, and asks for what requirements.in names."""

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.test_requirements import named, normal

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("imgo_site", "accounts", "offline", "push")
FILES = ("pyproject.toml", "setup.py", "requirements.in", "README.md", "LICENSE")
CHECK = ("-m", "django", "check", "--settings", "imgo_site.settings")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves its traces beside the source."""
    home = tmp_path_factory.mktemp("wheel")
    source = home / "source"
    for file in (*(ROOT / name for name in FILES), *sources("templates", *PACKAGES)):
        target = source / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w", str(home)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel"]
    subprocess.run([*command, *options, str(source)], check=True, timeout=200)
    (found,) = home.glob("*.whl")
    return found


def sources(*trees: str) -> list[Path]:
    files = [file for tree in trees for file in (ROOT / tree).rglob("*") if file.is_file()]
    return [file for file in files if "__pycache__" not in file.parts]


def test_wheel_holds_every_file_of_the_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {str(file.relative_to(ROOT)) for file in sources(*PACKAGES)}
    assert names == expected | {
        f"imgo_site/{file.relative_to(ROOT)}" for file in sources("templates")
    }


def test_wheel_requires_what_the_requirements_name(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        said = Parser().parsestr(archive.read(metadata).decode())
    assert said["Name"] == "imgo"
    wanted = {normal(line.split("[")[0].split("<")[0].split(">")[0]) for line in
              said.get_all("Requires-Dist")}  # fmt: skip
    assert wanted == named("requirements.in")


def test_wheel_runs_from_an_empty_directory(wheel, tmp_path):
    """Its packages come first on the path, before those of this checkout."""
    home, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home)
    services = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "IMGO_DATA_DIR")
    kept = {name: value for name, value in os.environ.items() if name not in services}
    done = subprocess.run(
        [sys.executable, *CHECK],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=empty,
        env={**kept, "PYTHONPATH": str(home), "DJANGO_SETTINGS_MODULE": "imgo_site.settings"},
    )
    assert "no issues" in done.stdout, done.stderr
    assert (empty / "var" / "imgo.sqlite3").stat().st_mode & 0o777 == 0o600
    assert (empty / "var").stat().st_mode & 0o777 == 0o700
    assert not (home / "var").exists()
