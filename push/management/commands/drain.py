"""`manage.py drain NODE`: have a node close its sessions and take no more, until `--undo`."""

import time
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from imgo_site.conf import conf
from push.management import local_api
from push.management.console import ImgoCommand, add_json, progress_bar
from push.operations import drain_node, undrain_node
from push.registry.select import get_registry

POLL_INTERVAL = 0.2  # seconds
GRACE = 10.0  # seconds beyond DRAIN_SECONDS until --wait gives up


class Command(ImgoCommand):
    """Command that drains a node."""

    help = (
        "Have a node take no more sessions and close those it has, spread over DRAIN_SECONDS, "
        "with a code that tells clients to connect to another. The node stays until it is stopped; "
        "'manage.py sessions' shows that it is draining. With --undo it takes sessions again."
    )
    examples: ClassVar = ("web1:8000", "5938fe7d --wait", "web1:8000 --undo")
    data: ClassVar = (
        '{"node": "web1:8000", "sessions": 812}',
        '{"node": "web1:8000", "draining": false}',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the node, and whether to wait or to undo."""
        parser.add_argument("node", help="its name or id, as 'manage.py sessions' shows them")
        group = parser.add_mutually_exclusive_group()
        group.add_argument("--wait", action="store_true", help="until it has no sessions any more")
        group.add_argument("--undo", action="store_true", help="have it take sessions again")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Drain the node, and print its number of sessions."""
        if local_api.is_embedded():
            raise CommandError(
                "Without REDIS_URL there is one server and no other node to go to. To close its "
                "sessions in order, stop it: Ctrl-C or SIGTERM. GET /api/v1/nodes shows it."
            )
        if options["undo"]:
            self._undo(options["node"], is_json=options["json"])
            return
        count = drain_node(options["node"])
        if options["wait"]:
            _wait(options["node"], count)
        if options["json"]:
            self.print_json({"node": options["node"], "sessions": count})
        else:
            done = "are closed" if options["wait"] else f"close within {conf.DRAIN_SECONDS:g} s"
            self.stdout.write(f"{options['node']} is draining: its {count} sessions {done}.")

    def _undo(self, name: str, *, is_json: bool) -> None:
        undrain_node(name)
        if is_json:
            self.print_json({"node": name, "draining": False})
        else:
            self.stdout.write(f"{name} takes sessions again.")


def _wait(name: str, count: int) -> None:
    deadline = time.monotonic() + conf.DRAIN_SECONDS + GRACE
    with progress_bar("sessions closed", count) as steps:
        while left := _sessions_left(name):
            steps.at(count - left)
            if time.monotonic() > deadline:
                raise CommandError(f"{name} still has {left} sessions.")
            time.sleep(POLL_INTERVAL)
        steps.at(count)


def _sessions_left(name: str) -> int:
    return sum(node.sessions for node in get_registry().nodes() if name in {node.id, node.name})
