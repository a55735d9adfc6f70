"""Program that accepts or cancels pushes and kills itself before one of its steps.

Arguments: the number of the step, counted from 1, the operation, and its arguments. A step is a
statement, or the commit of a transaction that the program itself has begun or that Django has. The
exit status is 0 if there were fewer steps.
"""

import itertools
import json
import os
import signal
import sys
from typing import Any

import django
import psycopg

django.setup()

from django.db import connection  # noqa: E402 - after `setup`

from offline import cancellation, key_devices, schedule  # noqa: E402
from offline.values import NewMessage  # noqa: E402
from push.accept.transaction import store  # noqa: E402

last, operation, argument = int(sys.argv[1]), *sys.argv[2:]
steps = itertools.count(1)
cancellation.BATCH = 1  # several transactions


def step() -> None:
    if next(steps) == last:
        os.kill(os.getpid(), signal.SIGKILL)


def execute(run: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    step()
    return run(sql, params, many, context)


def commit(raw: psycopg.Connection[Any]) -> None:
    step()
    plain_commit(raw)


plain_commit = psycopg.Connection.commit
connection.ensure_connection()
psycopg.Connection.commit = commit  # type: ignore[method-assign]
with connection.execute_wrapper(execute):
    if operation == "cancel":
        cancellation.cancel(int(argument))
    elif operation == "accept":
        store([NewMessage(b"{}", 600.0, **members) for members in json.loads(argument)])
    elif operation == "register":
        key_devices.register(*json.loads(argument))
    else:
        schedule.store_due()
