"""The wheel: it has all that a server needs, and asks for what requirements.in names."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import httpx
import pytest

from tests import NO_TLS, wait_until
from tests.services import free_port
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


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program `imgo`, installed into an environment that has only what imgo requires.

    The libraries are those of this environment, because to download them takes a minute.
    """
    home = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=60)
    (packages,) = home.glob("lib/python*/site-packages")
    libraries = sysconfig.get_paths()["purelib"]
    (packages / "libraries.pth").write_text(f"{libraries}\n")
    pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "--quiet"]
    options = ["--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *options, wheel], check=True, timeout=100)
    return home / "bin" / "imgo"


def environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    """Only what a program needs, without this checkout and without services."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **settings}


def test_program_of_the_package_serves_from_an_empty_directory(program, tmp_path):
    ports = dict(zip(("HTTP", "TCP"), map(str, (free_port(), free_port())), strict=True))
    settings = {
        "IMGO_HTTP_PORT": ports["HTTP"],
        "IMGO_WS_PORT": "0",
        "IMGO_TCP_PORT": ports["TCP"],
        "IMGO_API_KEY": "a key of the test of the package",
        "PYTHONUNBUFFERED": "1",
    }
    url = f"http://127.0.0.1:{ports['HTTP']}"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [program], cwd=tmp_path, env=environment(tmp_path, **settings), stdout=log, stderr=log
        )
    try:
        wait_until(lambda: is_up(server, url), 60)
        answer = httpx.post(
            f"{url}/api/v1/pushes",
            json={"to": {"key": "alice"}, "body": 1},
            headers={"Authorization": f"Api-Key {settings['IMGO_API_KEY']}"},
            verify=NO_TLS,
            trust_env=False,
        )
        assert answer.status_code == 202, answer.text
        assert b"imgo" in httpx.get(f"{url}/static/push/imgo.js", verify=NO_TLS).content.lower()
    finally:
        server.terminate()
        assert server.wait(60) == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "var" / "imgo.sqlite3").exists()
    assert "Traceback" not in (tmp_path / "log").read_text()


def is_up(server: "subprocess.Popen[bytes]", url: str) -> bool:
    assert server.poll() is None, "the server has ended"
    try:
        return httpx.get(f"{url}/healthz", verify=NO_TLS, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--help"], 0, "imgo help <subcommand>"),
        (["node", "--help"], 0, "Run a node"),
        (["check"], 0, "no issues"),
        (["token", "alice", "--json"], 1, "migrate"),
        (["api", "--version"], 0, "gunicorn"),
        (["nosuch"], 1, "Unknown command"),
    ],
)
def test_program_of_the_package_runs_commands(program, tmp_path, words, status, text):
    done = subprocess.run(
        [program, *words],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
