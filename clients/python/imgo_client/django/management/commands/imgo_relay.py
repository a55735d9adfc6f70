"""`manage.py imgo_relay`: the relay as a process of its own."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from imgo_client.django.conf import options
from imgo_client.django.running import Runner

SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


class Command(BaseCommand):
    """Sends the pushes of the outbox until SIGTERM or SIGINT."""

    help = "Send the outbox's pushes to the imgo server until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:  # noqa: D102
        parser.add_argument(
            "--once", action="store_true", help="send what is due, and end with status 0"
        )

    def handle(self, *_: Any, once: bool, **__: Any) -> None:  # noqa: D102
        opts = options()
        runner = Runner(opts.POLL)
        if once:
            runner.drain()
            runner.close()
            return
        # The main thread takes the signals synchronously. A handler would run between any two
        # operations of the relay, where it must not take the relay's locks.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        thread = threading.Thread(target=runner.run, name="imgo-relay", daemon=True)
        thread.start()
        self.stderr.write("The relay runs.")
        signal.sigwait(SIGNALS)
        runner.stop(opts.EXIT_WAIT)
        thread.join(opts.EXIT_WAIT + opts.HTTP_TIMEOUT)
        self.stderr.write("The relay has ended.")
