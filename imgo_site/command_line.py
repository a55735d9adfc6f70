"""The program `imgo` of the installed package, and the start of commands for `manage.py`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

INTERRUPTED = 130  # what shells give to a program that Ctrl-C has ended
SETTINGS = "DJANGO_SETTINGS_MODULE"
NODE = "imgo"  # the management command that runs a node
HELP = frozenset({"-h", "--help"})


def run(argv: Sequence[str]) -> None:
    """Run a management command. Wrong settings end it with a line instead of a traceback.

    `argv`: the program's name, the command's name and its arguments.
    """
    try:
        _run(argv)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run(argv: Sequence[str]) -> None:
    os.environ.setdefault(SETTINGS, "imgo_site.settings")
    import django
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError

    from imgo_site.name_collisions import check_packages
    from imgo_site.setup_errors import describe

    try:
        check_packages()  # before one of them is imported
        django.setup()
    except Exception as error:
        if "--traceback" in argv:
            raise
        sys.exit(f"Wrong settings: {describe(error)}")
    try:
        execute_from_command_line(list(argv))
    except (ImproperlyConfigured, OperationalError) as error:
        if "--traceback" in argv:
            raise
        is_database = isinstance(error, OperationalError)
        summary = "The database cannot be used" if is_database else "Wrong settings"
        sys.exit(f"{summary}: {error}")


def main() -> None:
    """Run `imgo`: a node, the API, or a management command.

    - `imgo`, `imgo node`: a node. Without DATABASE_URL and REDIS_URL it is the whole server.
    - `imgo api`: the API under gunicorn; further arguments go to gunicorn.
    - `imgo --version`: print the version of imgo.
    - `imgo NAME`: the management command NAME, such as `workers`, `migrate`, `check`, `push`.
    """
    name, *words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    if words == ["--version"]:
        from importlib.metadata import version

        print(version("imgo"))  # noqa: T201
        return
    if words[:1] == ["api"]:
        _become_api(words[1:])
    if words[:1] == ["node"] or not words or (words[0].startswith("-") and words[0] not in HELP):
        words = [NODE, *(words[1:] if words[:1] == ["node"] else words)]
    run([name, *words])


def _become_api(arguments: Sequence[str]) -> None:
    """Replace this process by gunicorn, with imgo's configuration."""
    os.environ.setdefault(SETTINGS, "imgo_site.settings")
    gunicorn = ["-m", "gunicorn", "-c", "python:imgo_site.gunicorn", "imgo_site.wsgi"]
    os.execv(sys.executable, [sys.executable, *gunicorn, *arguments])  # noqa: S606
