"""A receiver of upstream messages that refuses as the message says."""

from typing import Any

from accounts.identity import Identity
from imgo_site.errors import ImgoError


class SoldOut(ImgoError):
    """A refusal with a code of the project's own."""

    code = "sold_out"


async def receive(identity: Identity, op: int, body: Any) -> Any:
    """Refuse, fail, or return the body."""
    if body == "refuse":
        raise SoldOut("No seat is left.")
    if body == "fail":
        raise ZeroDivisionError("a bug of the project")
    return body
