"""Start of the relay after a commit: a thread of this process relays, or requests the Celery task.

The thread is a daemon thread. The first commit of a process starts it. So a process that only forks
others has none, and a forked child starts its own. The task is requested by a thread too, because a
broker that does not answer would delay the request that has committed.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from django.core import mail
from django.db import connections

from imgo_client.django.conf import options
from imgo_client.django.running import Runner

logger = logging.getLogger("imgo_client.relay")

FORK_WAIT = 5.0  # seconds that a fork waits for the thread's step


class ForkGate:
    """Lock that keeps a fork out of the steps of the relay's thread.

    A fork copies the locks that other threads hold, and nothing in the child releases them. Those
    of SQLite, OpenSSL and Kombu would stop the child at its first query or request. So a fork waits
    until the step that is under way ends, for at most `FORK_WAIT` seconds. The next step waits for
    the fork. A longer step waits for the network, which holds no such lock.
    """

    def __init__(self) -> None:
        self._step = threading.Lock()
        self._turn = threading.Lock()  # a thread of many short steps could starve the fork
        self._stepping: int | None = None  # the thread in a step
        self._is_closed = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """Do one step. Only one thread does steps."""
        with self._turn:
            self._step.acquire()
        self._stepping = threading.get_ident()
        try:
            yield
        finally:
            self._stepping = None
            self._step.release()

    def close(self) -> None:
        """Wait for the step's end, and hold up the next one. A step may fork, too."""
        if self._stepping != threading.get_ident():
            self._turn.acquire()
            self._is_closed = self._step.acquire(timeout=FORK_WAIT)

    def open(self) -> None:
        """Let the next step begin."""
        if self._stepping != threading.get_ident():
            if self._is_closed:
                self._step.release()
            self._turn.release()


class TaskRequests:
    """Requests the Celery task. Commits while one request is under way share the next one."""

    def __init__(self, step: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._step = step
        self._wakeup = threading.Event()
        self._has_work = True
        self._is_stopped = False

    def wake(self) -> None:
        """Let the task be requested. Any thread may call this."""
        self._has_work = True
        self._wakeup.set()

    def stop(self, _: float) -> None:
        """End `run` after the request that is due."""
        self._is_stopped = True
        self._wakeup.set()

    def run(self) -> None:
        """Work until `stop` is called. It raises nothing: errors are logged."""
        while self._has_work or not self._is_stopped:
            if self._has_work:
                self._has_work = False
                with self._step():
                    self._request()
            else:
                self._wakeup.wait()
                self._wakeup.clear()

    @staticmethod
    def _request() -> None:
        from imgo_client.django.tasks import relay

        try:
            relay.apply_async(retry=False)
        except Exception as error:  # noqa: BLE001 - brokers differ in what they raise
            logger.error(
                "The task imgo_client.relay could not be requested, and the outbox waits for the "
                "next request: %s",
                error,
            )
        connections.close_all()  # of a task that Celery runs at once, as its settings may say


class RelayThread:
    """The relay's thread of this process, by the option `RELAY`. The first `wake` starts it."""

    def __init__(self) -> None:
        self.fork_gate = ForkGate()
        self._lock = threading.Lock()
        self._runner: Runner | TaskRequests | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """Let the thread query the outbox now; start it unless it runs."""
        with self._lock:
            if self._runner is None or not self.is_running:
                opts = options()
                step = self.fork_gate.step
                is_task = opts.RELAY == "celery"
                self._runner = TaskRequests(step) if is_task else Runner(opts.IDLE_POLL, step=step)
                self._thread = threading.Thread(
                    target=self._runner.run, name="imgo-relay", daemon=True
                )
                self._thread.start()
            else:
                self._runner.wake()

    def stop(self, seconds: float) -> None:
        """End the thread after an attempt to send due rows; leave it running after this time."""
        with self._lock:
            if self._runner is not None and self._thread is not None:
                self._runner.stop(seconds)
                self._thread.join(seconds)
                self._runner = self._thread = None


relay_thread = RelayThread()


def wake() -> None:
    """Let committed rows be sent, as the option `RELAY` says. This waits for no network.

    Tests see no relay unless they set `RELAY_IN_TESTS`.
    """
    opts = options()
    # Django's test environment gives the mail module this list.
    if hasattr(mail, "outbox") and not opts.RELAY_IN_TESTS:
        return
    if opts.RELAY != "none":
        relay_thread.wake()


def _close_gate() -> None:
    relay_thread.fork_gate.close()


def _open_gate() -> None:
    relay_thread.fork_gate.open()


def _forget() -> None:
    """Drop the parent's thread in a forked child. The parent may have held the old one's lock."""
    global relay_thread  # noqa: PLW0603 - one thread a process
    relay_thread = RelayThread()


def _finish() -> None:
    """Give the thread a moment for the last commits, such as those of a management command."""
    if relay_thread.is_running:
        relay_thread.stop(options().EXIT_WAIT)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_gate, after_in_parent=_open_gate, after_in_child=_forget)
atexit.register(_finish)
