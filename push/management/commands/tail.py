"""`manage.py tail`: watch pushes as they are accepted."""

import json
import select
import sys
import time
from argparse import ArgumentParser
from base64 import b64encode
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar

from django.core.management.base import CommandError
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Max, Q

from accounts.callers import caller_names
from imgo_site.names import INT64_MAX, check_name, check_number
from offline.models import Message
from push.management.console import ImgoCommand, leave_pipe, printable

PAGE = 500  # messages read at a time
LATE = 10.0  # seconds that an id may be missing because its transaction has not ended yet
GAP_MAX = 1000  # missing ids that are queried again
INTERVAL_MAX = 3600  # seconds
SHOWN = 3  # keys of a push to many


class Command(ImgoCommand):
    """Command that prints pushes as they are accepted."""

    help = (
        "Print a line for each push as it is accepted, until Ctrl-C: the time of day in UTC, the "
        "id, the target, and the caller. Bodies are shown only with --bodies, because they may be "
        "private."
    )
    examples: ClassVar = ("", "--key alice --bodies", "--json --since 1043 --count 10")
    data: ClassVar = (
        '{"id": "1043", "at": "2026-11-26T08:00:00Z", "to": {"key": "alice"}, "op": 5, '
        '"stored": true, "expires_at": "2026-11-27T08:00:00Z", "by": "apikey:7", '
        '"by_name": "shop (apikey:7)"}',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the filters of pushes, and the form of the output."""
        parser.add_argument("--key", help="show only pushes that name this key")
        parser.add_argument("--room", help="show only pushes to this room")
        parser.add_argument("--bodies", action="store_true", help="show the bodies too")
        parser.add_argument(
            "--since", metavar="ID", help="start after this id (default: the latest id)"
        )
        parser.add_argument(
            "--count", type=int, default=0, metavar="N", help="stop after N pushes (0: never)"
        )
        parser.add_argument(
            "--interval",
            type=float,
            default=0.5,
            metavar="SECONDS",
            help="seconds between polls of the database (default 0.5)",
        )
        parser.add_argument("--json", action="store_true", help="print a JSON object a line")

    def run(self, **options: Any) -> None:
        """Print pushes until Ctrl-C, until `--count`, or until the output has no reader."""
        for name in ("key", "room"):
            if options[name] is not None:
                check_name(options[name], name)
        if not 0 < options["interval"] < INTERVAL_MAX:
            raise CommandError(f"--interval must be more than 0, and less than {INTERVAL_MAX}.")
        if options["count"] < 0:
            raise CommandError("--count must be 0 or more.")
        bodies = options["bodies"]
        show = _as_json if options["json"] else _as_line
        accepted = _follow(_start(options["since"]), options["interval"], bodies=bodies)
        matches = (each for each in accepted if _matches(each, options["key"], options["room"]))
        names: dict[str, str] = {}  # readable names of callers, by their names in records
        try:
            for message in islice(matches, options["count"] or None):
                if message.by not in names:
                    names |= caller_names([message.by])
                self.stdout.write(show(message, names[message.by], bodies=bodies))
                self.stdout.flush()
        except KeyboardInterrupt:
            return
        except BrokenPipeError:
            leave_pipe()


def _start(since: str | None) -> int:
    """Return the id after which to begin: `since`, or the last id if it is None.

    Raises `BadRequest` if `since` is not an id.
    """
    if since is not None:
        return check_number(since, "--since", lowest=0, highest=INT64_MAX)
    return Message.objects.aggregate(last=Max("pk"))["last"] or 0


def _follow(last: int, interval: float, *, bodies: bool) -> Iterator[Message]:
    """Yield the messages after the id `last`, as they are committed.

    A transaction draws its id before it commits, so an id may appear after a higher one. Skipped
    ids are queried again for `LATE` seconds, after which no transaction will commit them.
    """
    gaps: dict[int, float] = {}  # id → when it was first missed, monotonic seconds
    rows = Message.objects.order_by("pk")
    if not bodies:
        rows = rows.defer("body")
    while True:
        messages = list(rows.filter(Q(pk__gt=last) | Q(pk__in=list(gaps)))[:PAGE])
        now = time.monotonic()
        for message in messages:
            gaps.pop(message.pk, None)
            if message.pk > last:
                for missing in range(max(last + 1, message.pk - GAP_MAX), message.pk):
                    gaps[missing] = now
                last = message.pk
        yield from messages
        gaps = {i: since for i, since in gaps.items() if now - since < LATE}
        gaps = dict(list(gaps.items())[-GAP_MAX:])
        if len(messages) < PAGE:
            _pause(interval)


def _pause(seconds: float) -> None:
    """Wait for `seconds`. Raises `BrokenPipeError` if the reader of the output has gone.

    Writing would raise it too, but nothing is written while there are no pushes.
    """
    try:
        reader = select.poll()
        reader.register(sys.stdout, 0)  # poll always reports a hang-up
    except (OSError, ValueError):
        time.sleep(seconds)  # not a file, so there is no reader to lose
        return
    if reader.poll(seconds * 1000):
        raise BrokenPipeError


def _matches(message: Message, key: str | None, room: str | None) -> bool:
    if key is not None and key in (message.keys or ()):
        return True
    if room is not None and message.audience == Message.Audience.ROOM and message.room == room:
        return True
    return key is None and room is None


def _target(message: Message) -> dict[str, Any]:
    if message.audience == Message.Audience.KEYS:
        keys = message.keys or []
        return {"key": keys[0]} if len(keys) == 1 else {"keys": keys}
    if message.audience == Message.Audience.ROOM:
        return {"room": message.room}
    return {"all": True}


def _as_json(message: Message, by: str, *, bodies: bool) -> str:
    data: dict[str, Any] = {
        "id": str(message.pk),
        "at": message.created_at,
        "to": _target(message),
        "op": message.op,
        "stored": message.stored,
        "expires_at": message.expires_at,
        "by": message.by,
        "by_name": by,
    }
    if message.sender:
        data["from"] = message.sender
    if bodies and not message.is_json:
        data["body_base64"] = b64encode(bytes(message.body)).decode()
    line = json.dumps(data, cls=DjangoJSONEncoder, ensure_ascii=False)
    if bodies and message.is_json:
        # Unchanged, as Python cannot represent every JSON number. Line ends become spaces.
        body = b" ".join(bytes(message.body).splitlines()).decode()
        line = f'{line[:-1]}, "body": {body}}}'
    return line


def _as_line(message: Message, by: str, *, bodies: bool) -> str:
    ((kind, value),) = _target(message).items()
    if kind == "keys":
        more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        value = ", ".join(value[:SHOWN]) + more
    to = "all" if kind == "all" else f"{kind} {value}"
    life = "stored" if message.stored else "live"
    line = f"{message.created_at:%H:%M:%S}  {message.pk}  {to}  {life}  by {by or '?'}"
    if message.sender:
        line += f"  from {message.sender}"
    if message.op != Message._meta.get_field("op").default:
        line += f"  op {message.op}"
    if bodies:
        line += "  " + bytes(message.body).decode(errors="backslashreplace")
    return printable(line)
