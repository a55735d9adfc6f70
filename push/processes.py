"""Several nodes on one machine that share its ports: `manage.py imgo --processes N`.

Each is a node like any other, with a name and a hub of its own. They listen on the same ports with
SO_REUSEPORT: the kernel gives each new connection to one of them. They count together: whichever
is asked for its metrics answers for all.
"""

import os
import socket
import sys
from contextlib import ExitStack

from django.conf import settings

from imgo_site.conf import conf
from push.node import own_name
from push.shared_metrics import SharedMetrics
from push.supervisor import Child, Supervisor


class PortTaken(Exception):
    """A port cannot be listened on."""


def ports() -> list[tuple[str, int]]:
    """(setting, port) of all ports that a node listens on."""
    found = [(name, getattr(conf, name)) for name in ("HTTP_PORT", "WS_PORT", "TCP_PORT")]
    return [(name, port) for name, port in found if port]


def listen(port: int, *, shared: bool) -> socket.socket:
    """A socket that listens on `HOST`; other processes may listen too if it is `shared`.

    Raises OSError.
    """
    return socket.create_server(
        (conf.HOST, port), family=family(), backlog=conf.LISTEN_BACKLOG, reuse_port=shared
    )


def family() -> socket.AddressFamily:
    """That of `HOST`."""
    return socket.AF_INET6 if ":" in conf.HOST else socket.AF_INET


def run(count: int) -> None:
    """Run so many nodes until a SIGTERM or SIGINT, and till they have ended. Raises `PortTaken`."""
    with ExitStack() as held:
        for name, port in ports():
            try:
                held.enter_context(_hold(port))
            except OSError as error:
                raise PortTaken(f"{error.strerror or error} (IMGO_{name}={port})") from None
        shared = SharedMetrics("nodes")
        held.callback(shared.remove)
        Supervisor([_child(number, shared) for number in range(count)]).run()


def _hold(port: int) -> socket.socket:
    """Keep a port for the children, also while none of them listens.

    SO_REUSEPORT would let two installations of one user share a port unawares: so the port is
    first asked for without it, which fails when anybody listens.
    """
    with socket.socket(family()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((conf.HOST, port))
    held = socket.socket(family())
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((conf.HOST, port))  # and never listens: no connection comes here
    except OSError:
        held.close()
        raise
    return held


def _child(number: int, shared: SharedMetrics) -> Child:
    name = f"{own_name()}#{number}"
    environment = {
        **os.environ,
        # Whatever directory this was started in.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "DJANGO_SETTINGS_MODULE": settings.SETTINGS_MODULE,
        "IMGO_NODE_NAME": name,
        "IMGO_REUSE_PORT": "1",
    }
    command = [sys.executable, "-m", "django", "imgo", "--verbosity", "0"]
    return Child(f"node {name}", command, environment, shared)
