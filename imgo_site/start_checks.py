"""Start checks for servers that are not started by `manage.py`: gunicorn and Celery's own worker.

They check the settings as `manage.py imgo` does, before the server starts. They run all system
checks of the project that need no database, and fail for errors that are not silenced.
"""

import sys
from collections.abc import Callable

import django
from django.apps import apps
from django.core.checks import CheckMessage, run_checks

from imgo_site.setup_errors import describe


def exit_if_refused(load: Callable[[], object] | None = None) -> None:
    """Exit with status 1 and a line for each error if the settings are invalid.

    `load`: loads the project; None sets Django up, if that has not been done.
    """
    try:
        if load is not None:
            load()
        elif not apps.ready:
            django.setup()
        serious = [message for message in run_checks() if message.is_serious()]
    except Exception as error:  # noqa: BLE001 - settings may make other apps' code raise anything
        sys.exit(f"Wrong settings: {describe(error)}")
    if errors := [message for message in serious if not message.is_silenced()]:
        sys.exit("\n".join(map(_line, errors)))


def _line(message: CheckMessage) -> str:
    text = f"Wrong settings: {str(message.msg).rstrip('.')} ({message.id}). {message.hint or ''}"
    return " ".join(text.split())
