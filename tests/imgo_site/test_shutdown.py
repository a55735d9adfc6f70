"""The end of a process: in its time whatever is stuck, and at once at a second signal."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest

from imgo_site.shutdown import NOT_IN_ORDER, SIGNALS, SUPERVISED, Shutdown
from tests import wait_until

pytestmark = pytest.mark.services

# A process whose database thread, executor and main thread all wait for something silent.
STUCK = """
import logging, os, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings

settings.configure(IMGO={"DRAIN_SECONDS": 0.0})
from imgo_site import shutdown

logging.basicConfig(level="INFO", format="%(message)s")
shutdown.GRACE, shutdown.MARGIN = float(sys.argv[1]), 0.0
# Handlers write without a lock: each may be called in the midst of another.
shutdown.Shutdown("the server").on_signals(lambda: os.write(1, b"stops\\n"))
# Python calls the handlers of signals that are pending together in the order of their numbers.
signal.signal(signal.SIGURG, lambda *_: os.write(1, b"lives\\n"))
silent = threading.Event()
ThreadPoolExecutor().submit(silent.wait)
print("up", flush=True)
# The kernel may give a signal to another thread: the main thread learns of it when it looks.
while not silent.wait(0.05):
    pass
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the process, which is stuck; its grace in seconds, and more environment variables."""
    started: list[subprocess.Popen[str]] = []

    def run(grace: float, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", STUCK, str(grace)]
        environment = {**os.environ, "IMGO_DRAIN_SECONDS": "0", **more}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_process_that_is_stuck_ends_in_its_time(start):
    process = start(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=30)
    assert process.returncode == NOT_IN_ORDER
    assert time.monotonic() - began >= 0.5
    assert log.splitlines() == [
        "the server stops: SIGTERM",
        "the server ends without waiting any longer: the shutdown is not over after 0.5 s",
    ]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_process_at_once(start, second):
    process = start(3600.0)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert process.stderr.readline() == "the server stops: SIGTERM\n"
    assert process.poll() is None
    process.send_signal(second)
    wait_until(lambda: process.poll() is not None)
    assert process.returncode == 128 + second


def test_second_sigterm_in_a_supervised_process_does_nothing(start):
    process = start(3600.0, **{SUPERVISED: "1"})
    assert process.stdout is not None
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stops\n"
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGURG)
        assert process.stdout.readline() == "lives\n"
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert log.splitlines() == [
        "the server stops: SIGTERM",
        "the server ends without waiting any longer: a second signal (SIGINT)",
    ]


def test_signal_in_the_midst_of_the_first_ones_handler_is_the_second(monkeypatch):
    shutdown, stops, ends = Shutdown("the server"), [], []
    monkeypatch.setattr(shutdown, "end_now", lambda why, status: ends.append((why, status)))
    monkeypatch.setattr("imgo_site.shutdown.threading", Mock(wraps=threading, Timer=Mock()))

    class Interrupted:
        @property
        def DRAIN_SECONDS(self) -> float:  # noqa: N802 - the setting's name
            signal.raise_signal(signal.SIGTERM)
            return 0.0

    monkeypatch.setattr("imgo_site.shutdown.conf", Interrupted())
    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    try:
        shutdown.on_signals(lambda: stops.append("stop"))
        signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert stops == ["stop"]
    assert ends == [("a second signal (SIGTERM)", 128 + signal.SIGTERM)]


# A process that has done everything, while a thread of an executor still waits for something.
BUSY = """
import logging, sys, threading
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings

settings.configure(IMGO={"DRAIN_SECONDS": 0.0})
from imgo_site import shutdown

logging.basicConfig(level="INFO", format="%(message)s")
shutdown.LEAVE_TIMEOUT = 0.2
begun, silent = threading.Event(), threading.Event()


def wait_for_something_silent():
    begun.set()
    while not silent.wait(0.05):
        pass


if sys.argv[1] == "busy":
    ThreadPoolExecutor(thread_name_prefix="busy").submit(wait_for_something_silent)
    begun.wait()
shutdown.Shutdown("the server").leave(int(sys.argv[2]))
"""


@pytest.mark.parametrize("status", [0, 1])
def test_busy_threads_are_named_and_left_behind(status):
    ended = run_to_end("busy", status)
    assert ended.returncode == status
    (line,) = ended.stderr.splitlines()
    what = "the server ends without waiting any longer: what it left behind is "
    assert line.startswith(what)
    assert "busy_0 in " in line


def test_process_without_busy_threads_ends_by_itself():
    ended = run_to_end("idle", 1)
    assert (ended.returncode, ended.stderr) == (0, "")


def run_to_end(threads: str, status: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BUSY, threads, str(status)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
