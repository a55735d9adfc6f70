"""The metrics of the workers: one port for all workers of a `manage.py workers`.

A Celery worker has no HTTP port. So the workers write what they count into a directory that they
share, and the process that supervises them answers for all: `/metrics`, for an API key that may
read, `/healthz` and `/readyz`. A worker that was started with `celery` itself answers for itself.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from celery.signals import worker_init
from django.core.wsgi import get_wsgi_application

from imgo_site.celery import app
from imgo_site.conf import conf
from push.metrics import exposition
from push.metrics.shared_directory import SharedMetrics

logger = logging.getLogger(__name__)

PATHS = frozenset({"/metrics", "/healthz", "/readyz"})
REQUEST_TIMEOUT = 10.0  # seconds for a request to come in


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    application: Callable[..., Any] | None

    def __init__(self, host: str, port: int) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """WSGIServer's, without looking a name up for the address."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Not a line for each scrape."""
        logger.debug(format, *args)

    def address_string(self) -> str:
        """The address, without looking its name up."""
        return str(self.client_address[0])


class MetricsPort:
    """`WORKER_METRICS_PORT`. Raises OSError when it cannot be listened on."""

    def __init__(self) -> None:
        self._server = _Server(conf.HOST, conf.WORKER_METRICS_PORT)
        self._server.set_app(_only_ours(get_wsgi_application()))
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="imgo-metrics", daemon=True
        )

    def start(self) -> None:
        """Answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class WorkerMetrics:
    """The port of a supervisor, and what its workers share. Raises OSError."""

    def __init__(self) -> None:
        self._port = MetricsPort()
        self.shared = SharedMetrics("workers")

    def start(self) -> None:
        """Answer."""
        exposition.share(self.shared.path)
        self._port.start()

    def stop(self) -> None:
        """Answer no more, and remove the directory."""
        self._port.stop()
        exposition.share("")
        self.shared.remove()


@worker_init.connect
def _answer_alone(sender: Any = None, **_: Any) -> None:
    """In a worker of a supervisor the port is 0. A project's own workers have no such port."""
    if getattr(sender, "app", None) is not app or not conf.WORKER_METRICS_PORT:
        return
    try:
        MetricsPort().start()
    except OSError as error:
        raise SystemExit(taken(error)) from None


def taken(error: OSError) -> str:
    """Why the port cannot be had, and what names it."""
    return (
        f"The port of the metrics cannot be listened on: {error.strerror or error} "
        f"(IMGO_WORKER_METRICS_PORT={conf.WORKER_METRICS_PORT})"
    )


def _only_ours(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The site, without its other paths: this is no port for pushing."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") not in PATHS:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"Here are /metrics, /healthz and /readyz.\n"]
        return application(environ, start)

    return answer
