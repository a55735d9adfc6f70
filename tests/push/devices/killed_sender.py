"""Program that sends and closes notifications, and kills itself before one of its steps.

Arguments: the number of the step, counted from 1, and a file. A step is a commit, a request to the
provider, or its answer. The provider is the file: a request adds a line to it. The exit status is 0
if there were fewer steps.
"""

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

import django
import psycopg

django.setup()

from django.db import connection  # noqa: E402 - after `setup`

from tests.push.devices.turns import take_turns  # noqa: E402

last, provider = int(sys.argv[1]), Path(sys.argv[2])
steps = itertools.count(1)


def step() -> None:
    if next(steps) == last:
        os.kill(os.getpid(), signal.SIGKILL)


def commit(raw: psycopg.Connection[Any]) -> None:
    step()
    plain_commit(raw)


def send(line: str) -> None:
    step()
    with provider.open("a") as file:
        file.write(f"{line}\n")
    step()


plain_commit = psycopg.Connection.commit
connection.ensure_connection()
psycopg.Connection.commit = commit  # type: ignore[method-assign]
take_turns(send)
