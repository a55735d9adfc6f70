"""`manage.py push BODY`: push to a key, many keys, a room or everyone."""

import json
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from django.core.management.base import CommandError

from imgo_site.conf import conf
from imgo_site.errors import BadRequest, ImgoError
from imgo_site.names import check_name
from push.accept.accept import Push, accept_push
from push.accept.frame_bodies import is_json
from push.accept.send_times import read_send_at
from push.devices.content import Notify, notify_of
from push.management import local_api
from push.management.console import ImgoCommand, add_json, progress_bar
from push.wire import Op

SHOWN = 80  # characters of a body that was refused
BY = "manage.py push"  # the caller's name in records, and the owner of the dedupe ids


class Command(ImgoCommand):
    """Command that pushes a message."""

    help = (
        "Push a message to one or more keys, to a room, or to everyone, and print its id. Messages "
        "to keys are stored and delivered when the key connects. Messages to a room or to everyone "
        "reach only sessions that are open."
    )
    examples: ClassVar = (
        """--key alice '{"hello": "world"}'""",
        """--room lobby '"closing in 5 minutes"'""",
        "--all --ttl 60 - < body.json",
        """--keys-from keys.txt --dedupe-id sale-7 '"sale"'""",
        """--key alice --notify '{"title": "Order 7", "url": "/orders/7"}' 7""",
        """--key alice --send-at 2026-12-24T18:00:00+01:00 '"merry"'""",
    )
    data: ClassVar = (
        '{"id": "1043"}',
        '{"ids": ["1043", "1044"]}',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the target, the body and the options of the push."""
        _add_target(parser)
        parser.add_argument("body", help="JSON text; - reads it from the standard input")
        _add_times(parser)
        _add_notification(parser)
        _add_reception(parser)
        parser.add_argument(
            "--op",
            type=int,
            default=int(Op.MESSAGE),
            help="op of the message's frame: 5 (default), or one of your own from 1000 on",
        )
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Push, and print only the id, or one id a line, for use in scripts."""
        for name in ("room", "dedupe_id", "collapse_key"):
            if options[name] is not None:
                check_name(options[name], name)  # "" is a mistake of a script, not a missing option
        source = options["keys_from"]
        if source == "-" == options["body"]:
            raise CommandError("The standard input is either the keys or the body.", returncode=2)
        push = partial(
            Push,
            body=_body(options["body"]),
            room=options["room"] or "",
            to_all=options["all"],
            op=options["op"],
            ttl=options["ttl"],
            store=not options["no_store"],
            send_at=_send_at(options["send_at"]),
            exclude=tuple(options["exclude"] or ()),
            collapse_key=options["collapse_key"] or "",
            version=options["push_version"],
            notify=_notify(options["notify"]),
            notify_after=options["notify_after"],
        )
        dedupe_id = options["dedupe_id"] or ""
        if source:
            pushes = _parts(push, _keys(source), dedupe_id)
        else:
            pushes = [push(keys=tuple(options["key"] or ()), dedupe_id=dedupe_id)]
        ids = _push_all(pushes)
        if options["json"]:
            self.print_json({"ids": ids} if source else {"id": ids[0]})
        else:
            self.stdout.write("\n".join(ids))


def _add_target(parser: ArgumentParser) -> None:
    to = parser.add_mutually_exclusive_group(required=True)
    to.add_argument("--key", action="append", help="a subscriber key; may be repeated")
    to.add_argument(
        "--keys-from",
        metavar="FILE",
        help="a file with one key a line (-: the standard input). Each MAX_KEYS keys become "
        "one message with an id of its own. With --dedupe-id an interrupted command can be "
        "repeated: messages that were accepted are not pushed twice",
    )
    to.add_argument("--room", help="push to the sessions in this room")
    to.add_argument("--all", action="store_true", help="push to all open sessions")


def _add_times(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--ttl",
        type=int,
        metavar="SECONDS",
        help="lifetime of the message (default: TTL; for --room and --all: LIVE_TTL)",
    )
    parser.add_argument(
        "--send-at",
        metavar="TIME",
        help="when it is due: a time with a zone, such as 2026-12-24T18:00:00Z, or a number of "
        "seconds from now, at most MAX_DELAY (default: now). --ttl counts from then",
    )


def _add_reception(parser: ArgumentParser) -> None:
    """Add what decides who gets the message, and which messages it replaces."""
    parser.add_argument(
        "--exclude",
        action="append",
        metavar="SESSION",
        help="id of a session that does not get it; may be repeated. Not with --all",
    )
    parser.add_argument(
        "--collapse-key",
        metavar="NAME",
        help="replace older pushes with this collapse key to the same key or room that are "
        "pending, scheduled or kept by the room",
    )
    parser.add_argument(
        "--push-version",
        type=int,
        dest="push_version",
        metavar="NUMBER",
        help="with --collapse-key: drop this push if an earlier one had a higher version",
    )
    parser.add_argument(
        "--dedupe-id",
        help="push only if no push had this id within DEDUPE_WINDOW; else print the id of the "
        "message that had it",
    )
    parser.add_argument(
        "--no-store",
        action="store_true",
        help="do not store the message: only sessions that are open now get it",
    )


def _add_notification(parser: ArgumentParser) -> None:
    """Add the options about devices."""
    parser.add_argument(
        "--notify",
        metavar="JSON",
        help="what devices of the keys show if it is still pending after --notify-after "
        "seconds: an object with title, and body, url, icon, tag, data if wanted",
    )
    parser.add_argument(
        "--notify-after",
        type=float,
        metavar="SECONDS",
        help="with --notify: seconds after the push is due (default: NOTIFY_AFTER)",
    )


def _send_at(text: str | None) -> datetime | float | None:
    """Return the time or the number of seconds that a text is. Raises `BadRequest`."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return read_send_at(text)


def _notify(text: str | None) -> Notify | None:
    """Return the notification that a text is. Raises `BadRequest` or `CommandError`."""
    if text is None:
        return None
    try:
        return notify_of(json.loads(text))
    except ValueError:
        raise CommandError(f"--notify is not JSON: {text[:SHOWN]!r}", returncode=2) from None


def _push_all(pushes: list[Push]) -> list[str]:
    """Push one after the other; return the ids.

    Raises an `ImgoError` for the first that fails; its message names how many were pushed before.
    """
    ids: list[str] = []
    with progress_bar("messages", len(pushes) if len(pushes) > 1 else 0) as steps:
        for push in pushes:
            try:
                done = _through_server(push) if local_api.is_embedded() else accept_push(push, BY)
            except ImgoError as error:
                if ids:
                    error.message = f"After {len(ids)} of {len(pushes)} messages: {error.message}"
                raise
            ids.append(str(done))
            steps.advance(1)
    return ids


def _keys(source: str) -> tuple[str, ...]:
    """Return the distinct keys in a file, or in the standard input if `source` is "-".

    Raises `CommandError` if a line is not a key or if there is none, `OSError` if the file cannot
    be read.
    """
    if source == "-":
        data = sys.stdin.buffer.read() if sys.stdin else b""
    else:
        data = Path(source).read_bytes()
    keys: dict[str, None] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            if line:
                keys[check_name(line.decode(), "key")] = None
        except UnicodeDecodeError:
            raise CommandError(f"Line {number} of {source}: is not UTF-8.") from None
        except BadRequest as error:
            raise CommandError(f"Line {number} of {source}: {error.message}") from None
    if not keys:
        raise CommandError(f"There is no key in {source}: it has to have one a line.")
    return tuple(keys)


def _parts(push: Callable[..., Push], keys: tuple[str, ...], dedupe_id: str) -> list[Push]:
    """Return a push to more keys than one push may name, as several pushes."""
    starts = range(0, len(keys), conf.MAX_KEYS)
    return [
        push(
            keys=keys[start : start + conf.MAX_KEYS],
            dedupe_id=dedupe_id and f"{dedupe_id}/{number}",
        )
        for number, start in enumerate(starts, start=1)
    ]


def _body(text: str) -> bytes:
    """Return the body as bytes; "-" reads the standard input.

    Raises `CommandError` if the body is empty or not JSON.
    """
    # Bytes, because the standard input may not be in the terminal's encoding.
    if text == "-":
        data = sys.stdin.buffer.read().strip() if sys.stdin else b""
    else:
        data = text.encode(errors="surrogateescape")  # the bytes that were typed
    if not data:
        raise CommandError("The body is empty.")
    if not is_json(data):
        like = shlex.quote(json.dumps(data.decode(errors="replace")[:SHOWN], ensure_ascii=False))
        raise CommandError(f"The body is not JSON. Text needs quotes of its own: {like}")
    return data


def _through_server(push: Push) -> int:
    """Push through the API of the embedded server, as only its process has the sessions."""
    to: dict[str, object] = {"keys": push.keys} if push.keys else {"room": push.room}
    fields: dict[str, object] = {"to": {"all": True} if push.to_all else to, "op": push.op}
    fields["store"] = "always" if push.store else "never"
    if push.ttl is not None:
        fields["ttl"] = push.ttl
    if push.send_at is not None:
        at = push.send_at
        fields["send_at"] = at.isoformat() if isinstance(at, datetime) else at
    if push.collapse_key:
        fields["collapse_key"] = push.collapse_key
    if push.version is not None:
        fields["version"] = push.version
    if push.exclude:
        fields["exclude"] = push.exclude
    if push.notify is not None:
        fields["notify"] = json.loads(push.notify.text)
    if push.notify_after is not None:
        fields["notify_after"] = push.notify_after
    if push.dedupe_id:
        fields["dedupe_id"] = push.dedupe_id
    # The body is sent unchanged, with the caller's numbers, spaces and order of names.
    request = json.dumps(fields).encode()[:-1] + b', "body": ' + push.body + b"}"
    return int(local_api.call("POST", "/api/v1/pushes", request)["id"])
