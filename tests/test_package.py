"""The wheel: it has all that a server needs, and asks for what requirements.in names."""

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.packages import ROOT, build_server
from tests.test_requirements import named, normal

pytestmark = pytest.mark.services

PACKAGES = ("imgo_site", "accounts", "offline", "push")
CHECK = ("-m", "django", "check", "--settings", "imgo_site.settings")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_server(tmp_path_factory.mktemp("wheel"))


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
              said.get_all("Requires-Dist") if "extra ==" not in line}  # fmt: skip
    assert wanted == named("requirements.in")
    assert set(said.get_all("Provides-Extra")) == {"webpush", "apns", "fcm"}


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


def test_package_that_has_overwritten_ours_is_named(wheel, tmp_path):
    """As after `pip install other`, which has a package `accounts` too."""
    home = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home)
    for path in (home / "accounts").glob("*.py"):
        path.write_text("")
    other = home / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "RECORD").write_text("accounts/__init__.py,,\nother-1.0.dist-info/RECORD,,\n")
    program = "import sys, imgo_site.command_line as it; it.run(['imgo', 'check'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(home)},
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("Wrong settings: The packages ")
    assert {"imgo", "other"} == set(line.split(" have all ")[0].split("packages ")[1].split(", "))
    assert done.returncode == 1
