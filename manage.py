#!/usr/bin/env python3
"""Django's command line for this project."""

import sys

from imgo_site.command_line import run

if __name__ == "__main__":
    run(sys.argv)
