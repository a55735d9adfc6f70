"""Start checks of servers that are not started by `manage.py`: gunicorn and Celery's own worker.

They judge the settings as `manage.py imgo` does, before anything is served: all of the project's
system checks that need no database, of which errors that are not silenced count.
"""

import sys
from collections.abc import Callable

import django
from django.apps import apps
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured


def exit_if_refused(load: Callable[[], object] | None = None) -> None:
    """Exit with status 1 and a line for each error if the settings cannot be served with.

    `load` loads the project; without it Django is set up, if that is still to be done.
    """
    try:
        if load is not None:
            load()
        elif not apps.ready:
            django.setup()
        refused = [found for found in run_checks() if found.is_serious()]
    except ImproperlyConfigured as error:
        sys.exit(f"Wrong settings: {error}")
    if errors := [found for found in refused if not found.is_silenced()]:
        sys.exit("\n".join(map(_line, errors)))


def _line(found: CheckMessage) -> str:
    text = f"Wrong settings: {str(found.msg).rstrip('.')} ({found.id}). {found.hint or ''}"
    return " ".join(text.split())
