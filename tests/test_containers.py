"""The containers of deploy/kubernetes, run from the installed wheel with Postgres and Redis.

The commands, probes and settings are those of the manifests. Only the ports are others.
"""

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from imgo_client import Client
from tests import NO_TLS, PATIENCE, wait_until
from tests.e2e.harness import Database
from tests.packages import build_server, install, run, start
from tests.services import Redis, free_port, redis_programs, start_first
from tests.test_kubernetes import HOME, kinds, pods, read

pytestmark = [pytest.mark.services, pytest.mark.long]

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@dataclass
class Container:
    """A container of the manifests, and its process here."""

    manifest: dict[str, Any]
    home: Path
    ports: dict[int, int]  # those of the manifest, and those that are used here
    process: Any = None

    @property
    def log(self) -> Path:
        return self.home / f"{self.manifest['name']}.log"

    def start(self, settings: dict[str, str]) -> None:
        name, *rest = [self._adapted(word) for word in self.manifest["command"]]
        program = shutil.which(name, path=settings["PATH"])
        assert program is not None, f"the image has no {name}"
        own = {
            entry["name"]: self._adapted(entry["value"])
            for entry in self.manifest.get("env", [])
            if "value" in entry
        }
        out = self.log.with_suffix(".out")
        self.process = start(
            program, *rest, cwd=self.home, out=out, log=self.log, **settings, **own
        )

    def _adapted(self, text: str) -> str:
        for usual, used in self.ports.items():
            text = text.replace(str(usual), str(used))
        return text.replace("0.0.0.0", "127.0.0.1")

    def url(self, name: str) -> str:
        """The address of a port of this name."""
        (port,) = [p["containerPort"] for p in self.manifest["ports"] if p["name"] == name]
        return f"http://127.0.0.1:{self.ports[port]}"

    def answer(self, probe: str) -> int:
        """The status of a probe's answer, 0 without one."""
        assert self.process.poll() is None, self.log.read_text()
        target = self.manifest[probe]["httpGet"]
        url = f"{self.url(target['port'])}{target['path']}"
        try:
            return httpx.get(url, timeout=6, verify=NO_TLS, trust_env=False).status_code
        except httpx.TransportError:
            return 0


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The ConfigMap and the Secret, with services of their own, and the programs of the image."""
    home = tmp_path_factory.mktemp("image")
    programs = install(home, str(build_server(home / "wheel")))
    (config,) = kinds(read(HOME / "config.yaml"), "ConfigMap")
    database = Database(os.environ["DATABASE_URL"])
    redis = start_first(Redis, home, redis_programs())
    yield {
        **config["data"],
        "PATH": f"{programs}:{os.environ['PATH']}",
        "DATABASE_URL": database.url,
        "REDIS_URL": redis.url,
        "DJANGO_SECRET_KEY": secrets.token_urlsafe(50),
    }
    database.drop()
    redis.remove()


@pytest.fixture(scope="module")
def containers(
    settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Container]]:
    """All that serve, by their names, after the Job has ended."""
    home = tmp_path_factory.mktemp("containers")
    found = {}
    for _, manifest in pods(read(*HOME.glob("*.yaml"))):
        numbers = [port["containerPort"] for port in manifest.get("ports", [])]
        found[manifest["name"]] = Container(manifest, home, {n: free_port() for n in numbers})
    migrate = found.pop("migrate")
    name, *words = migrate.manifest["command"]
    done = run(str(shutil.which(name, path=settings["PATH"])), *words, cwd=home, **settings)
    assert done.returncode == 0, done.stderr
    node = found["node"]
    own = {"IMGO_HTTP_PORT": node.url("http"), "IMGO_TCP_PORT": node.url("tcp")}
    ports = {name: url.rpartition(":")[2] for name, url in own.items()}
    try:
        for container in found.values():
            container.start({**settings, **ports, "IMGO_WS_PORT": "0"})
        for container in found.values():
            for probe in PROBES:
                wait_until(lambda c=container, p=probe: c.answer(p) == 200, 100)
        yield found
    finally:
        for container in found.values():
            if container.process is not None:
                container.process.terminate()
        statuses = {name: one.process.wait(60) for name, one in found.items()}
    assert statuses == {"node": 0, "workers": 0, "api": 0}


def test_probes_of_all_containers_succeed(containers: dict[str, Container]) -> None:
    answers = {
        (name, probe): one.answer(probe) for name, one in containers.items() for probe in PROBES
    }
    assert answers == {
        (name, probe): 200 for name in ("node", "workers", "api") for probe in PROBES
    }


async def test_push_to_the_api_arrives_at_a_session_of_the_node(
    containers: dict[str, Container], settings: dict[str, str], tmp_path: Path
) -> None:
    """The backend is in the cluster, where the API's name is that of its Service."""

    async def imgo(*words: str) -> str:
        program = shutil.which("imgo", path=settings["PATH"])
        done = await asyncio.to_thread(run, program, *words, cwd=tmp_path, **settings)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    key, token = await imgo("apikey", "shop", "--scope", "push"), await imgo("token", "alice")
    socket = containers["node"].url("http").replace("http", "ws") + "/sub"
    async with Client(socket, token) as client:
        async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as http:
            answer = await http.post(
                f"{containers['api'].url('http')}/api/v1/pushes",
                json={"to": {"key": "alice"}, "body": {"hello": "cluster"}},
                headers={"Authorization": f"Api-Key {key}", "Host": "imgo-api"},
            )
        assert answer.status_code == 202, answer.text
        message = await asyncio.wait_for(anext(aiter(client)), PATIENCE)
    assert message.body == {"hello": "cluster"}


def test_logs_are_json_lines(containers: dict[str, Container]) -> None:
    """As `LOG_FORMAT` of the ConfigMap says."""
    lines = [line for one in containers.values() for line in one.log.read_text().splitlines()]
    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)
