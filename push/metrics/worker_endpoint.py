"""HTTP endpoint for the metrics of workers: one port for all workers of a `manage.py workers`.

A Celery worker has no HTTP port. So the workers write their metrics into a directory that they
share, and their supervisor serves them. It serves `/metrics`, for an API key that may read,
`/healthz` and `/readyz`. A worker that was started with `celery` itself has a port of its own.
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
REQUEST_TIMEOUT = 10.0  # seconds to receive a request


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    application: Callable[..., Any] | None

    def __init__(self, host: str, port: int) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind as WSGIServer does, but without a DNS query for the host's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Log at the debug level: scrapes are too many for the info level."""
        logger.debug(format, *args)

    def address_string(self) -> str:
        """Return the client's address, without a DNS query for its name."""
        return str(self.client_address[0])


class MetricsPort:
    """HTTP server on `WORKER_METRICS_PORT`. Raises OSError if it cannot listen on the port."""

    def __init__(self) -> None:
        self._server = _Server(conf.HOST, conf.WORKER_METRICS_PORT)
        self._server.set_app(_limit_paths(get_wsgi_application()))
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="imgo-metrics", daemon=True
        )

    def start(self) -> None:
        """Serve requests in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the port."""
        self._server.shutdown()
        self._server.server_close()


class WorkerMetrics:
    """A supervisor's port and the directory that its workers share.

    Raises OSError if the port cannot be opened or the directory cannot be created.
    """

    def __init__(self) -> None:
        self._port = MetricsPort()
        self.shared = SharedMetrics("workers")

    def start(self) -> None:
        """Report the workers' metrics on the port."""
        exposition.share(self.shared.path)
        self._port.start()

    def stop(self) -> None:
        """Close the port and remove the directory."""
        self._port.stop()
        exposition.share("")
        self.shared.remove()


@worker_init.connect
def _open_own_port(sender: Any = None, **_: Any) -> None:
    """Open the port in a worker without a supervisor.

    Under a supervisor the setting is 0. Workers of a project's own Celery app open no port.
    """
    if getattr(sender, "app", None) is not app or not conf.WORKER_METRICS_PORT:
        return
    try:
        MetricsPort().start()
    except OSError as error:
        raise SystemExit(taken(error)) from None


def taken(error: OSError) -> str:
    """Return the error text for a port that cannot be opened, with the setting that names it."""
    return (
        f"The port of the metrics cannot be listened on: {error.strerror or error} "
        f"(IMGO_WORKER_METRICS_PORT={conf.WORKER_METRICS_PORT})"
    )


def _limit_paths(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Return the site limited to `PATHS`: this port does not accept pushes."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") not in PATHS:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"Here are /metrics, /healthz and /readyz.\n"]
        return application(environ, start)

    return answer
