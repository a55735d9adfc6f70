"""What devices send."""

from datetime import UTC, datetime
from typing import Any

from accounts.identity import Identity
from examples.device_feed.models import Reading
from imgo_site.errors import BadRequest


async def receive(identity: Identity, op: int, body: Any) -> Any:  # noqa: ARG001
    """Store a reading. The answer means that it is stored; it may be sent again without harm."""
    match body:
        case {"at": int() as at, "celsius": float() | int() as celsius} if 0 <= at < 1e11:
            pass
        case _:
            raise BadRequest('A reading is {"at": Unix time in seconds, "celsius": number}.')
    taken = datetime.fromtimestamp(at, UTC)
    await Reading.objects.aget_or_create(
        device=identity.key, at=taken, defaults={"celsius": celsius}
    )
    return {"stored": at}
