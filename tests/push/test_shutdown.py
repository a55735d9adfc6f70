"""The end of a process: in its time whatever is stuck, and at once at a second signal."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from push.shutdown import NOT_IN_ORDER
from tests import wait_until

# A process whose database thread, executor and main thread all wait for something silent.
STUCK = """
import logging, sys, threading
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings

settings.configure(IMGO={"DRAIN_SECONDS": 0.0})
from push import shutdown

logging.basicConfig(level="INFO", format="%(message)s")
shutdown.GRACE, shutdown.MARGIN = float(sys.argv[1]), 0.0
shutdown.Shutdown("the server").on_signals(lambda: None)
silent = threading.Event()
ThreadPoolExecutor().submit(silent.wait)
print("up", flush=True)
silent.wait()
"""


@pytest.fixture
def start() -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    """Starts the process, which is stuck; its grace in seconds."""
    started: list[subprocess.Popen[str]] = []

    def run(grace: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", STUCK, str(grace)]
        environment = {**os.environ, "IMGO_DRAIN_SECONDS": "0"}
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
