#!/usr/bin/env python3
"""Django's command line for this project."""

import os
import sys

INTERRUPTED = 130  # what shells give to a program that Ctrl-C has ended


def main() -> None:
    """Run the command named on the command line; wrong settings are a line, not a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imgo_site.settings")
    import django
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError

    from imgo_site.setup_errors import describe

    try:
        django.setup()
    except Exception as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(f"Wrong settings: {describe(error)}")
    try:
        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, OperationalError) as error:
        if "--traceback" in sys.argv:
            raise
        is_database = isinstance(error, OperationalError)
        what = "The database cannot be used" if is_database else "Wrong settings"
        sys.exit(f"{what}: {error}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
