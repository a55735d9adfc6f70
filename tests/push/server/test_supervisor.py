"""What keeps processes running: when it starts them again, and that it ends them in order."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from push.metrics.shared_directory import SharedMetrics
from push.server import node_processes as processes
from push.server.ports import ports
from push.server.supervisor import (
    BACKOFF,
    HEALTHY_AFTER,
    LAUNCHER,
    STOP_TIMEOUT,
    Child,
    Supervisor,
)
from tests import wait_until

pytestmark = pytest.mark.services

ENDS = [sys.executable, "-c", "raise SystemExit(3)"]
LASTS = ["sleep", "600"]


def has_ended(child: Child) -> bool:
    assert child._process is not None
    return child._process.poll() is not None


def test_one_that_ends_is_started_again_a_little_later_each_time(caplog):
    child, now, waits = Child("the child", ENDS), 0.0, []
    for _ in range(8):
        child.check(now)
        assert child.started == now
        wait_until(lambda: has_ended(child))
        child.check(now)  # notices
        wait = child._not_before - now
        child.check(now + wait - 0.01)
        assert child._process is None
        waits.append(wait)
        now += wait
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert "the child ended with 3, it is started again in 1 s" in caplog.text


def test_after_a_long_life_the_wait_is_short_again():
    child = Child("the child", ENDS)
    child.check(0.0)
    wait_until(lambda: has_ended(child))
    child.check(0.0)
    child.check(BACKOFF[0])
    wait_until(lambda: has_ended(child))
    late = BACKOFF[0] + HEALTHY_AFTER + 1
    child.check(late)
    assert child._not_before == late + BACKOFF[0]


def test_one_that_lasts_is_left_alone_replaced_and_stopped():
    child = Child("the child", LASTS)
    child.check(0.0)
    first = child._process
    child.check(HEALTHY_AFTER * 2)
    assert child._process is first
    now = HEALTHY_AFTER * 3
    child.replace(now)
    wait_until(lambda: first.poll() == -signal.SIGTERM)
    child.check(now)
    assert child._process is not None
    assert child._process.pid != first.pid
    child.ask_to_stop()
    wait_until(lambda: not child.is_running)
    child.ask_to_stop()  # of one that has ended: nothing


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[Child]:
    """A child that ignores SIGTERM, and is there."""
    up = tmp_path / "up"
    child = Child("the child", ["sh", "-c", f"trap '' TERM; touch {up}; exec sleep 600"])
    child.check(0.0)
    wait_until(up.exists)
    yield child
    child.kill()
    wait_until(lambda: not child.is_running)


def test_child_that_ignores_its_replacement_is_killed(stubborn: Child):
    first = stubborn._process
    assert first is not None
    stubborn.replace(1.0)
    stubborn.check(1.0 + STOP_TIMEOUT - 0.1)
    assert first.poll() is None
    stubborn.check(1.0 + STOP_TIMEOUT)
    wait_until(lambda: first.poll() == -signal.SIGKILL)
    stubborn.check(20.0)
    assert stubborn._process is not first
    assert stubborn.is_running


def test_supervisor_kills_children_that_do_not_end_in_time(stubborn, imgo, monkeypatch, caplog):
    imgo(DRAIN_SECONDS=0.0)
    monkeypatch.setattr(Supervisor, "stop_grace", 0.2)
    Supervisor([stubborn])._end_children()
    assert not stubborn.is_running
    assert "the child did not end in time, it is killed" in caplog.text


def test_supervisor_told_twice_kills_its_children_at_once(stubborn):
    supervisor = Supervisor([stubborn])
    supervisor._stop(signal.SIGTERM, None)
    supervisor._stop(signal.SIGTERM, None)
    supervisor._end_children()
    assert not stubborn.is_running


def test_one_that_was_never_started_is_no_trouble():
    child = Child("the child", LASTS)
    child.ask_to_stop()
    child.kill()
    child.replace(0.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_to_all_and_the_end_waits_for_them(tmp_path: Path, number):
    # Each says when it is there and when it was told, and takes a moment to end.
    code = (
        "import pathlib, signal, sys, threading\n"
        "told = threading.Event()\n"
        "signal.signal(signal.SIGTERM, lambda *_: told.set())\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "path.write_text('up')\n"
        "told.wait()\n"
        "path.write_text('done')\n"
    )
    paths = [tmp_path / f"{n}" for n in range(3)]
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}

    def end_when_up() -> None:
        wait_until(lambda: all(path.exists() and path.read_text() == "up" for path in paths))
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=end_when_up)
    thread.start()
    try:
        Supervisor([Child(p.name, [sys.executable, "-c", code, str(p)]) for p in paths]).run()
    finally:
        thread.join()
        for n, handler in before.items():
            signal.signal(n, handler)
    assert [path.read_text() for path in paths] == ["done"] * 3


def test_nodes_that_share_ports_have_names_of_their_own(imgo, settings):
    imgo(NODE_NAME="web")
    shared = SharedMetrics("nodes")
    children = [processes._child(number, shared) for number in range(2)]
    shared.remove()
    assert [child.name for child in children] == ["node web#0", "node web#1"]
    for number, child in enumerate(children):
        assert child._environment["IMGO_NODE_NAME"] == f"web#{number}"
        assert child._environment["IMGO_REUSE_PORT"] == "1"
        assert child._environment["PROMETHEUS_MULTIPROC_DIR"] == shared.path
        assert child._environment["DJANGO_SETTINGS_MODULE"] == settings.SETTINGS_MODULE


def test_ports_are_listed_by_their_settings(imgo):
    imgo(HTTP_PORT=1, WS_PORT=0, TCP_PORT=3)
    assert ports() == [("HTTP_PORT", 1), ("TCP_PORT", 3)]


def test_a_killed_supervisor_takes_its_children_along_in_order(tmp_path: Path):
    """Whatever threads it has: the kernel tells its children for each of them."""
    told = tmp_path / "told"
    lasts = (
        "import os, pathlib, sys, threading, time\n"
        "from django.conf import settings\n"
        "settings.configure(IMGO={})\n"
        "from imgo_site.shutdown import Shutdown\n"
        "parent, path, ends = os.getppid(), pathlib.Path(sys.argv[1]), threading.Event()\n"
        "Shutdown('the child').on_signals(ends.set)\n"
        "path.write_text('up')\n"
        "ends.wait()\n"
        "while os.getppid() == parent: time.sleep(0.01)\n"
        "path.write_text('told')\n"
    )
    code = (
        "import sys, threading\n"
        "from push.server.supervisor import Child, Supervisor\n"
        "for _ in range(20): threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "Supervisor([Child('child', [sys.executable, '-c', *sys.argv[1:]])]).run()\n"
    )
    command = [sys.executable, "-c", code, lasts, str(told)]
    with subprocess.Popen(command) as supervisor:
        wait_until(lambda: told.exists() and told.read_text() == "up", 30)
        supervisor.kill()
    wait_until(lambda: told.read_text() == "told", 30)


def test_who_is_started_by_somebody_that_has_ended_does_not_begin():
    nobody = "1" if os.getpid() != 1 else "2"
    ended = subprocess.run(
        [sys.executable, "-c", LAUNCHER, nobody, "echo", "begun"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Whoever started this has ended." in ended.stderr
