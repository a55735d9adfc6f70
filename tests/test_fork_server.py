"""The fork server: what it starts is like what Python starts, and ends with the tests."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import fork_server, wait_until
from tests.fork_server import PLAIN_START, Forked

# Every test that starts a process uses what is tested here.
pytestmark = [pytest.mark.services, pytest.mark.long]

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 60.0  # seconds for a short program
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}

# What differs between two programs only if their starts differ.
PROBE = """
import gc, json, locale, os, random, signal, sys, threading, time, warnings

def stream(text):
    flags = text.line_buffering, text.write_through, type(text.buffer).__name__
    return text.name, text.mode, text.encoding, text.errors, text.isatty(), text.fileno(), flags

def command_line():
    return [word for word in open("/proc/self/cmdline").read().split("\\0") if word]

mask = os.umask(0)
found = {
    "name": __name__,
    "file": globals().get("__file__"),
    "main": vars(sys.modules["__main__"]) is globals(),
    "argv": sys.argv,
    "orig_argv": sys.orig_argv,
    "command_line": command_line(),
    "path": sys.path,
    "directory": os.getcwd(),
    "environment": dict(os.environ),
    "streams": [stream(text) for text in (sys.stdin, sys.stdout, sys.stderr)],
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
    "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "session": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid(), os.getppid()],
    "mask": mask,
    "collector": [gc.isenabled(), gc.get_threshold()],
    "threads": threading.active_count(),
    "zone": time.tzname,
    "locale": locale.setlocale(locale.LC_CTYPE),
    "bytecode": sys.dont_write_bytecode,
}
print(json.dumps(found, default=str))
"""


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -c code arguments...` by a fork."""
    return fork_server.run(
        ["-c", code, *arguments], ROOT, ENVIRONMENT | environment, timeout=TIMEOUT
    )


def start(code: str, **environment: str) -> fork_server.Program:
    """Start `python -c code`, with its output where nobody reads it."""
    null = subprocess.DEVNULL
    return fork_server.start(
        ["-c", code], ROOT, ENVIRONMENT | environment, stdout=null, stderr=null
    )


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"PYTHONUNBUFFERED": "1", "TZ": "Asia/Tokyo"},
        {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/nowhere:/else", "SOME": "é \udcff"},
    ],
    ids=["bare", "unbuffered", "path"],
)
@pytest.mark.parametrize("kind", ["code", "module", "script"])
def test_forked_program_finds_what_a_plain_one_finds(
    tmp_path: Path, kind: str, more: dict[str, str]
) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    first = {"code": ["-c", PROBE], "module": ["-m", "probe"], "script": ["probe.py"]}[kind]
    found = []
    for own in ({}, {PLAIN_START: "1"}):
        done = fork_server.run(
            [*first, "a b", "--c"], tmp_path, ENVIRONMENT | more | own, timeout=TIMEOUT
        )
        assert (done.returncode, done.stderr) == (0, "")
        found.append(json.loads(done.stdout))
    forked, plain = found
    assert plain["environment"].pop(PLAIN_START) == "1"
    for probe in found:  # a Python that starts in the C locale adds this for its children
        probe["environment"].pop("LC_CTYPE", None)
    assert forked == plain


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("import sys; sys.exit('wrong')", 1, "wrong"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("import os; os._exit(7)", 7, ""),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("import atexit, os; atexit.register(os._exit, 5)", 5, ""),
    ],
)
def test_exit_status_is_that_of_the_program(code: str, status: int, error: str) -> None:
    done = run(code)
    assert done.returncode == status
    assert done.stderr.strip().endswith(error)


SHUTDOWN = """
import atexit, sys, threading, time
from django.db import models

class Last:
    def __del__(self):
        print("module cleared", models is not None)

def finish():
    import celery.app.amqp, logging
    print("callback", logging is sys.modules["logging"])

last = Last()
atexit.register(finish)
threading.Thread(target=lambda: time.sleep(0.1) or print("thread")).start()
"""


@pytest.mark.parametrize("environment", [{}, {PLAIN_START: "1"}], ids=["forked", "plain"])
def test_shutdown_of_a_program_is_complete(environment: dict[str, str]) -> None:
    done = run(SHUTDOWN, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["thread", "callback True", "module cleared True"]


def test_output_and_input_are_those_of_the_program() -> None:
    code = "import sys; print(sys.stdin.read().upper()); print('é', file=sys.stderr)"
    done = fork_server.run(["-c", code], ROOT, ENVIRONMENT, stdin="öl", timeout=TIMEOUT)
    assert (done.stdout, done.stderr) == ("ÖL\n", "é\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signal_ends_the_program_and_is_its_status(number: signal.Signals) -> None:
    program = start("import time; time.sleep(600)")
    assert isinstance(program, Forked)
    assert program.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.01)
    program.send_signal(number)
    assert program.wait(TIMEOUT) == program.poll() == program.returncode == -number
    program.send_signal(number)  # the process id may be another's: nothing is sent
    with pytest.raises(ProcessLookupError):
        os.kill(program.pid, 0)


def test_group_of_a_program_can_be_signalled_at_once() -> None:
    for _ in range(5):
        program = start("import time; time.sleep(600)")
        os.killpg(program.pid, signal.SIGKILL)
        assert program.wait(TIMEOUT) == -signal.SIGKILL


def test_programs_draw_different_random_numbers() -> None:
    code = "import random, uuid, secrets; print(random.random(), uuid.uuid4(), secrets.token_hex())"
    first, second = (run(code).stdout.split() for _ in range(2))
    assert len({*first, *second}) == 6


def test_program_can_execute_itself_again() -> None:
    code = (
        "import os, sys\n"
        "if len(sys.argv) == 1:\n"
        "    os.execv(sys.executable, [*sys.orig_argv, 'again'])\n"
        "print(sys.argv)"
    )
    assert run(code).stdout == "['-c', 'again']\n"


def test_threads_start_programs_at_the_same_time() -> None:
    fork_server.server().stop()
    with ThreadPoolExecutor(4) as pool:
        statuses = pool.map(lambda n: run(f"raise SystemExit({n})").returncode, range(12))
    assert list(statuses) == list(range(12))
    assert run("").returncode == 0  # the thread that has started the server has ended
    assert not fork_server.server().has_ended


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONHASHSEED", "LC_ALL", "PSYCOPG_IMPL"])
def test_variable_that_is_read_at_the_start_means_a_plain_start(name: str) -> None:
    program = start("", **{name: ""})
    assert isinstance(program, subprocess.Popen)
    assert program.wait(TIMEOUT) == 0
    assert fork_server.server().differences({**ENVIRONMENT, name: ""}) == {name}


def test_variables_of_the_tests_allow_a_fork() -> None:
    own = {"DJANGO_SETTINGS_MODULE": "imgo_site.settings", "IMGO_HTTP_PORT": "1", "TERM": "some"}
    assert fork_server.server().differences({**ENVIRONMENT, **own}) == set()
    assert fork_server.server().differences(os.environ) == set()


def test_plain_start_can_be_required_by_either_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs = [start("", **{PLAIN_START: "1"})]
    monkeypatch.setenv(PLAIN_START, "1")
    programs.append(start(""))
    for program in programs:
        assert isinstance(program, subprocess.Popen)
        assert program.wait(TIMEOUT) == 0


def test_server_that_has_died_is_replaced() -> None:
    server = fork_server.server()
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: server.has_ended)
    with pytest.raises((OSError, EOFError)):
        start("")
    assert server.is_stopped
    assert run("print(1)").stdout == "1\n"
    assert fork_server.server() is not server


OWNER = """
import os, subprocess, sys, threading, time
from pathlib import Path
from tests import fork_server

def begin():
    code = "import time; time.sleep(600)"
    null = subprocess.DEVNULL
    words = ["-c", code]
    program = fork_server.start(words, Path.cwd(), dict(os.environ), stdout=null, stderr=null)
    print(fork_server.server().pid, program.pid, type(program).__name__, flush=True)

if sys.argv[1] == "thread":
    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
else:
    begin()
if sys.argv[2] == "exit":
    sys.exit()
# Copies of its files, the connection to the server among them, outlive it.
if os.fork() == 0:
    os.setsid()
    time.sleep(20)
    os._exit(0)
time.sleep(600)
"""


@pytest.mark.parametrize(("where", "how"), [("main", "kill"), ("thread", "kill"), ("main", "exit")])
def test_server_and_programs_end_with_their_owner(where: str, how: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, where, how],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    server, program, kind = owner.stdout.readline().split()
    owner.stdout.close()
    assert kind == "Forked"
    if how == "kill":
        owner.kill()
    owner.wait(TIMEOUT)
    for pid in (int(server), int(program)):
        wait_until(gone(pid), 10.0)


def gone(pid: int) -> Callable[[], bool]:
    """Return a function that returns whether a process has ended."""

    def has_ended() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    return has_ended
