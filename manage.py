#!/usr/bin/env python3
"""Django's command line for this project."""

import sys

if __name__ == "__main__":
    try:
        from imgo_site.command_line import run  # here, as it loads libraries for a while

        run(sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)  # what shells give to a program that Ctrl-C has ended
