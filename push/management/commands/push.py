"""`manage.py push BODY`: push to a key, many keys, a room or everyone."""

import json
import shlex
import sys
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from push.management import local_api
from push.management.console import ImgoCommand, add_json
from push.services import Push, accept_push, is_json
from push.wire import Op

SHOWN = 80  # characters of a body that was refused
BY = "manage.py push"  # the caller's name in records, and whose dedupe ids they are


class Command(ImgoCommand):
    """Push."""

    help = (
        "Push a message and print its id. It goes to one or more keys, to a room, or to everyone; "
        "who is not there gets what was pushed to its key later, who is not in the room does not."
    )
    examples: ClassVar = (
        """--key alice '{"hello": "world"}'""",
        """--room lobby '"closing in 5 minutes"'""",
        "--all --ttl 60 - < body.json",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Whom it is for, and what."""
        to = parser.add_mutually_exclusive_group(required=True)
        to.add_argument("--key", action="append", help="a subscriber key; may be repeated")
        to.add_argument("--room", help="a room")
        to.add_argument("--all", action="store_true", help="everyone who is connected")
        parser.add_argument("body", help="JSON text; - reads it from the standard input")
        parser.add_argument("--ttl", type=int, metavar="SECONDS", help="how long it may wait")
        parser.add_argument("--dedupe-id", default="", help="pushed once, however often it is said")
        parser.add_argument("--no-store", action="store_true", help="only for who is connected now")
        parser.add_argument("--op", type=int, default=int(Op.MESSAGE), help="5, or 1000 and more")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print the id alone, for use in scripts."""
        push = Push(
            body=_body(options["body"]),
            keys=tuple(options["key"] or ()),
            room=options["room"] or "",
            to_all=options["all"],
            op=options["op"],
            ttl=options["ttl"],
            store=not options["no_store"],
            dedupe_id=options["dedupe_id"],
        )
        push.check()
        message_id = _through_server(push) if local_api.is_embedded() else accept_push(push, BY)
        if options["json"]:
            self.print_json({"id": str(message_id)})
        else:
            self.stdout.write(str(message_id))


def _body(text: str) -> bytes:
    """The bytes that are pushed. Raises `CommandError` when they are not JSON."""
    # As bytes: what stands there need not be in the terminal's encoding.
    data = sys.stdin.buffer.read().strip() if text == "-" else text.encode(errors="replace")
    if not data:
        raise CommandError("The body is empty.")
    if not is_json(data):
        like = shlex.quote(json.dumps(data.decode(errors="replace")[:SHOWN], ensure_ascii=False))
        raise CommandError(f"The body is not JSON. Text needs quotes of its own: {like}")
    return data


def _through_server(push: Push) -> int:
    """The embedded server has to send it: it alone knows the sessions."""
    to: dict[str, object] = {"keys": push.keys} if push.keys else {"room": push.room}
    fields: dict[str, object] = {"to": {"all": True} if push.to_all else to, "op": push.op}
    fields["store"] = "always" if push.store else "never"
    if push.ttl is not None:
        fields["ttl"] = push.ttl
    if push.dedupe_id:
        fields["dedupe_id"] = push.dedupe_id
    # The body goes as it is: numbers, spaces and the order of names are the caller's.
    request = json.dumps(fields).encode()[:-1] + b', "body": ' + push.body + b"}"
    return int(local_api.call("POST", "/api/v1/pushes", request)["id"])
