"""The servers that the tests run against: they come up, can be killed, and leave nothing."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis

from tests import services
from tests.services import Postgres, Redis, ServiceError

# Every test that needs a service uses what is tested here.
pytestmark = [pytest.mark.services, pytest.mark.long]

ROOT = Path(__file__).resolve().parent.parent
GONE_TIMEOUT = 20.0  # seconds for a server to notice that its parent died


def ping(server: Redis) -> bool:
    with redis.Redis.from_url(server.url, socket_timeout=5) as client:
        return bool(client.ping())


def select(server: Postgres, query: str) -> object:
    with psycopg.connect(server.url, connect_timeout=5) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row and row[0]


def wait_until_nobody_listens(port: int) -> None:
    deadline = time.monotonic() + GONE_TIMEOUT
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(services.POLL_INTERVAL)
    pytest.fail(f"Something still listens on port {port}.")


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def run_python(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process that looks for servers like a test session would."""
    unset = {"DATABASE_URL", "REDIS_URL"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in unset},
    )


def test_the_wheels_have_both_servers() -> None:
    assert services.POSTGRES_WHEEL in services.postgres_programs()[-1].parts
    assert services.REDIS_WHEEL in services.redis_programs()[-1].parts


@pytest.mark.parametrize("programs", services.postgres_programs(), ids=str)
def test_postgres_keeps_what_it_committed_over_kill_and_stop(
    programs: Path, tmp_path: Path
) -> None:
    server = Postgres(tmp_path, programs)
    try:
        server.start()
        first_pid = server.pid
        with psycopg.connect(server.url) as connection:
            connection.execute("create table kept as select 7 as number")
        # An open connection is a child process that outlives its killed parent for a moment.
        with contextlib.closing(psycopg.connect(server.url)) as connection:
            connection.execute("select 1")
            server.kill()
            assert not server.is_running
            with pytest.raises(psycopg.OperationalError):
                select(server, "select 1")
            server.start()
        assert server.pid != first_pid
        server.stop()
        server.start()
        assert select(server, "select number from kept") == 7
    finally:
        server.remove()


@pytest.mark.parametrize("program", services.redis_programs(), ids=str)
def test_redis_answers_again_after_kill_and_stop(program: Path, tmp_path: Path) -> None:
    server = Redis(tmp_path, program)
    try:
        server.start()
        first_pid = server.pid
        assert ping(server)
        server.kill()
        assert not server.is_running
        with pytest.raises(redis.ConnectionError):
            ping(server)
        server.start()
        assert server.pid != first_pid
        assert ping(server)
        server.stop()
        server.start()
        assert ping(server)
    finally:
        server.remove()


@pytest.fixture
def redis_server(tmp_path: Path) -> Redis:
    return Redis(tmp_path, services.redis_programs()[-1])


def test_every_way_to_end_a_server_can_be_repeated(redis_server: Redis) -> None:
    redis_server.stop()
    redis_server.kill()
    redis_server.start()
    pid = redis_server.pid
    redis_server.start()
    assert redis_server.pid == pid
    redis_server.stop()
    redis_server.stop()
    redis_server.kill()
    with pytest.raises(ServiceError, match="does not run"):
        _ = redis_server.pid
    redis_server.remove()
    redis_server.remove()
    assert not redis_server.home.exists()


def test_a_server_that_hangs_is_killed(
    redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "DOWN_TIMEOUT", 0.2)
    redis_server.start()
    port = redis_server.port
    os.kill(redis_server.pid, signal.SIGSTOP)
    redis_server.remove()
    wait_until_nobody_listens(port)


def test_a_taken_port_is_left_to_its_owner(redis_server: Redis) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        redis_server.port = taken
        redis_server.start()
        assert redis_server.port != taken
        assert ping(redis_server)
    redis_server.remove()


def test_a_server_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broken = script(tmp_path / "redis-server", "echo no luck today; exit 3")
    server = Redis(tmp_path, broken)
    with pytest.raises(ServiceError, match="no luck today"):
        server.start()
    server.remove()


def test_a_server_that_never_answers_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "UP_TIMEOUT", 3.0)  # it has to get as far as thinking
    server = Redis(tmp_path, script(tmp_path / "redis-server", "echo thinking; exec sleep 60"))
    with pytest.raises(ServiceError, match="thinking"):
        server.start()
    assert not server.is_running
    server.remove()


def test_programs_that_do_not_work_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("initdb", "postgres", "redis-server"):
        script(tmp_path / name, "echo broken; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert services.postgres_programs()[0] == tmp_path
    started = services.start_services(tmp_path)
    try:
        assert started.postgres is not None
        assert select(started.postgres, "select 1") == 1
        assert started.redis is not None
        assert ping(started.redis)
    finally:
        started.stop()


def test_urls_in_the_environment_are_used_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://db.example/imgo")
    monkeypatch.setenv("REDIS_URL", "redis://cache.example/3")
    started = services.start_services(tmp_path)
    assert started == services.Services("postgres://db.example/imgo", "redis://cache.example/3")
    started.stop()
    assert not list(tmp_path.iterdir())


START_AND_LEAVE = """
import sys
from pathlib import Path
from tests.services import start_services
started = start_services(Path(sys.argv[1]))
for server in (started.postgres, started.redis):
    print(server.port, server.home)
"""


def test_servers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    result = run_python(START_AND_LEAVE, tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        port, home = line.split(maxsplit=1)
        wait_until_nobody_listens(int(port))
        assert not Path(home).exists()


START_AND_DIE = """
import os, signal, sys
from pathlib import Path
from tests import services
make = {"postgres": services.Postgres, "redis": services.Redis}[sys.argv[1]]
programs = {"postgres": services.postgres_programs, "redis": services.redis_programs}[sys.argv[1]]
server = make(Path(sys.argv[2]), programs()[-1])
server.start()
print(server.port, server.home, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_servers_end_when_their_parent_is_killed(kind: str, tmp_path: Path) -> None:
    result = run_python(START_AND_DIE, Path(kind), tmp_path)
    assert result.returncode == -signal.SIGKILL, result.stderr
    port, home = result.stdout.split(maxsplit=1)
    wait_until_nobody_listens(int(port))
    shutil.rmtree(home.strip())


def test_a_forked_child_does_not_take_the_servers_along(redis_server: Redis) -> None:
    redis_server.start()
    redis_server._owner += 1  # as a forked child would see it
    redis_server.remove()
    assert ping(redis_server)
    redis_server._owner -= 1
    redis_server.remove()
