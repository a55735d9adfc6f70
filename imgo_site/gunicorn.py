"""gunicorn's settings for the API: `gunicorn -c python:imgo_site.gunicorn imgo_site.wsgi`.

It adds three things to gunicorn's defaults:

- higher limits for long queries and long tokens
- shared metrics of all its processes, in the directory `PROMETHEUS_MULTIPROC_DIR` or, without
  that variable, in a temporary one
- a format for the access log, if that is enabled, with the id of each request. It omits the
  query, in which old tools send their API key.
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

# goim's callers name keys in the query. gunicorn's constant of 8,190 bytes is the maximum of the
# setting, except for 0, which means no limit. So the constant is raised too.
message.MAX_REQUEST_LINE = limit_request_line = REQUEST_LINE_MAX
# A header may carry a token of MAX_AUTH_BODY, 8,192 bytes by default. gunicorn's default is 8,190
# with the name. It keeps up to 100 headers of a request, so this is no larger than it must be.
limit_request_field_size = 16_384

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_own = "" if os.environ.get(VARIABLE) else tempfile.mkdtemp(prefix="imgo-api-")
if _own:
    # Before prometheus_client is imported, which reads it once; the workers are forked later.
    os.environ[VARIABLE] = _own

# Seconds from SIGTERM until workers with running requests are killed. Their services may not
# answer, and the whole stop must end within DRAIN_SECONDS plus ten seconds.
graceful_timeout = 8
# Only TRUSTED_PROXIES decides which proxies are trusted; the site's middleware applies it.
secure_scheme_headers: dict[str, str] = {}

# This worker answers probes even while all threads wait for the database.
worker_class = "push.server.gunicorn_worker.Worker"

access_log_format = (
    '%(h)s %(t)s "%(m)s %(U)s" %(s)s %(b)s %(M)sms "%(a)s" request %({x-request-id}o)s'
)

if os.environ.get("LOG_FORMAT", "").strip().lower() == "json":
    # For gunicorn's own lines; Django configures those of the site.
    _logger = {"level": "INFO", "handlers": ["imgo"], "propagate": False}
    logconfig_dict = {
        "root": {"level": "INFO", "handlers": ["imgo"]},
        "formatters": {"imgo": {"()": "imgo_site.logs.JsonLines"}},
        "handlers": {"imgo": {"class": "logging.StreamHandler", "formatter": "imgo"}},
        "loggers": {"gunicorn.error": _logger, "gunicorn.access": _logger},
    }


class Logger(GunicornLogger):  # type: ignore[misc]
    """gunicorn's logger with control characters escaped, so that each record stays one line."""

    def setup(self, cfg: Any) -> None:
        """Create the handlers and add the filter."""
        super().setup(cfg)
        for handler in {*self.error_log.handlers, *self.access_log.handlers}:
            handler.addFilter(OneLine())


logger_class = Logger


def on_starting(server: Any) -> None:
    """Exit if the settings are wrong; remove the metrics of ended processes."""
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
    """Return whether the application loads and its settings are valid, checked in a child process.

    In the master, the loaded code would be inherited by all later workers. A reload by SIGHUP would
    then have no effect.
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
    except BaseException:  # noqa: BLE001 - the child must never return into the master's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def child_exit(_server: Any, worker: Any) -> None:
    """Remove the gauges of an ended worker from the metrics; its counters stay in the sums."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(_server: Any) -> None:
    """Remove the temporary directory, if there is one."""
    if _own:
        shutil.rmtree(_own, ignore_errors=True)
