#!/usr/bin/env python3
"""Django's command line for this project."""

import sys

MISSING = (
    "{}: this Python ({}) does not have imgo's packages. `make run` installs them into .venv, "
    "and `. .venv/bin/activate` makes a shell use them."
)

if __name__ == "__main__":
    try:
        try:
            from imgo_site.command_line import run  # here, as it loads libraries for a while
        except ModuleNotFoundError as error:
            sys.exit(MISSING.format(error, sys.executable))
        run(sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)  # what shells give to a program that Ctrl-C has ended
