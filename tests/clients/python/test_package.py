"""The package: it builds, holds what it should, and runs where nothing of the server is."""

import subprocess
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import imgo_client
from tests.packages import CLIENT as PACKAGE
from tests.packages import ROOT, build_client

PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]


def sources() -> list[Path]:
    """The package's own files, without what Python leaves beside them."""
    files = (PACKAGE / "imgo_client").rglob("*")
    return [file for file in files if file.is_file() and "__pycache__" not in file.parts]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_client(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_package_and_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("imgo_client/")}
        assert names == {str(file.relative_to(PACKAGE)) for file in sources()}
        for name in ("migrations/0001_initial.py", "static/imgo_client/page.js"):
            assert f"imgo_client/django/{name}" in names
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        said = Parser().parsestr(archive.read(metadata).decode())
    assert (said["Name"], said["Version"]) == ("imgo-client", imgo_client.__version__)
    assert said["Requires-Python"] == ">=3.10"
    assert said.get_all("Requires-Dist") == [
        "httpx>=0.27",
        "websockets>=14",
        'Django>=4.2; extra == "django"',
    ]
    assert "# imgo-client" in said.get_payload()


def test_the_version_is_one() -> None:
    assert PROJECT["version"] == imgo_client.__version__


def test_the_licence_is_the_projects() -> None:
    assert (PACKAGE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_it_runs_where_nothing_of_the_server_is(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in ("anyio", "certifi", "h11", "httpcore", "httpx", "idna", "websockets"):
        module = Path(__import__(name).__file__).parent
        (site / name).symlink_to(module)
    (site / "typing_extensions.py").symlink_to(__import__("typing_extensions").__file__)
    program = "import imgo_client, sys; print(imgo_client.__file__, 'django' in sys.modules)"
    done = subprocess.run(
        [python, "-I", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.split() == [str(site / "imgo_client" / "__init__.py"), "False"]


def test_all_that_is_public_is_there_and_has_words() -> None:
    for name in imgo_client.__all__:
        found = getattr(imgo_client, name)
        assert name.startswith("__") or found.__doc__
