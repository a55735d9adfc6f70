"""gunicorn's settings for the API: `gunicorn -c python:imgo_site.gunicorn imgo_site.wsgi`.

What it adds to gunicorn's own: room for long queries; the metrics of all its processes together,
in the directory that `PROMETHEUS_MULTIPROC_DIR` names or else in one of its own; and an access
log, when one is asked for, without queries, in which old tools have their API key, and with the id
of each request.
"""

import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger  # type: ignore[import-untyped]
from gunicorn.http import message  # type: ignore[import-untyped]

from imgo_site.logs import OneLine
from imgo_site.names import REQUEST_LINE_MAX

# goim's callers name keys in the query. The setting alone can be no more than gunicorn's constant
# of 8,190 bytes, but for 0, which would be any number.
message.MAX_REQUEST_LINE = limit_request_line = REQUEST_LINE_MAX

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_own = "" if os.environ.get(VARIABLE) else tempfile.mkdtemp(prefix="imgo-api-")
if _own:
    # Before anything of prometheus_client is loaded: it looks once, and the workers are forks.
    os.environ[VARIABLE] = _own

# Seconds from SIGTERM until workers whose requests do not end are killed. The services that they
# wait for may be silent, and the whole stop is promised within DRAIN_SECONDS and ten more.
graceful_timeout = 8
# Which proxy is believed is said once, in TRUSTED_PROXIES, and the site's middleware holds to it.
secure_scheme_headers: dict[str, str] = {}

# Probes are answered while all threads wait for the database.
worker_class = "push.server.gunicorn_worker.Worker"

access_log_format = (
    '%(h)s %(t)s "%(m)s %(U)s" %(s)s %(b)s %(M)sms "%(a)s" request %({x-request-id}o)s'
)

if os.environ.get("LOG_FORMAT", "").strip().lower() == "json":
    # gunicorn's own lines too; those of the site are set up by Django.
    _logger = {"level": "INFO", "handlers": ["imgo"], "propagate": False}
    logconfig_dict = {
        "root": {"level": "INFO", "handlers": ["imgo"]},
        "formatters": {"imgo": {"()": "imgo_site.logs.JsonLines"}},
        "handlers": {"imgo": {"class": "logging.StreamHandler", "formatter": "imgo"}},
        "loggers": {"gunicorn.error": _logger, "gunicorn.access": _logger},
    }


class Logger(GunicornLogger):  # type: ignore[misc]
    """gunicorn's, whose lines stay lines whatever is in a path or a header."""

    def setup(self, cfg: Any) -> None:
        """Make the handlers."""
        super().setup(cfg)
        for handler in {*self.error_log.handlers, *self.access_log.handlers}:
            handler.addFilter(OneLine())


logger_class = Logger


def on_starting(server: Any) -> None:
    """Exit if the settings are wrong; empty the directory of the counts.

    What is in the directory are the counts of processes that are no more.
    """
    if server is not None and not _may_start(server):
        if server.pidfile is not None:
            server.pidfile.unlink()
        on_exit(server)
        sys.exit(1)
    directory = Path(os.environ[VARIABLE])
    directory.mkdir(parents=True, exist_ok=True)
    for file in directory.glob("*.db"):
        file.unlink()


def _may_start(server: Any) -> bool:
    """Load the application as a worker does and check its settings, in a process of its own.

    Loaded in the master, the code would be the same in all later workers: a reload by SIGHUP would
    change nothing.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    status = 1
    try:
        from imgo_site.start_checks import exit_if_refused

        exit_if_refused(server.app.wsgi)
        status = 0
    except SystemExit as refusal:
        sys.stderr.write(f"{refusal}\n")
    except BaseException:  # noqa: BLE001 - nothing of this process may go on in the master's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def child_exit(_server: Any, worker: Any) -> None:
    """Forget what is true of a living process only; what it has counted still counts."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(_server: Any) -> None:
    """Remove a directory of our own."""
    if _own:
        shutil.rmtree(_own, ignore_errors=True)
