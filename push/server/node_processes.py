"""Several nodes on one machine that share its ports: `manage.py imgo --processes N`.

Each is a node like any other, with a name and a hub of its own. They listen on the same ports with
SO_REUSEPORT: the kernel gives each new connection to one of them. They share their metrics, so each
process reports those of all.
"""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack

from django.conf import settings

from push.metrics.shared_directory import SharedMetrics
from push.node.node import own_name
from push.server.ports import held, ports, reason
from push.server.supervisor import Child, Supervisor


class PortTaken(Exception):
    """A port cannot be listened on."""


def run(count: int, ready: Callable[[], None]) -> None:
    """Run `count` nodes; after a SIGTERM or SIGINT, return when all have ended.

    `ready`: called when the ports are reserved for them.

    Raises `PortTaken`.
    """
    with ExitStack() as held_ports:
        for name, port in ports():
            try:
                held_ports.enter_context(held(port))
            except OSError as error:
                raise PortTaken(reason(error, f"IMGO_{name}={port}")) from None
        ready()
        shared = SharedMetrics("nodes")
        held_ports.callback(shared.remove)
        Supervisor([_child(number, shared) for number in range(count)]).run()


def _child(number: int, shared: SharedMetrics) -> Child:
    name = f"{own_name()}#{number}"
    environment = {
        **os.environ,
        # The same import path, whatever the present directory is.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "DJANGO_SETTINGS_MODULE": settings.SETTINGS_MODULE,
        "IMGO_NODE_NAME": name,
        "IMGO_REUSE_PORT": "1",
    }
    command = [sys.executable, "-m", "django", "imgo", "--verbosity", "0"]
    return Child(f"node {name}", command, environment, shared)
