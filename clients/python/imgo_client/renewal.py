"""Renewal of a session's token before it expires."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

SHARE = 0.8  # of a token's time, after which another one is sent
PAUSE_MIN, PAUSE_MAX = 1.0, 86_400.0  # seconds from one attempt to the next


def expiry_of(reply: object) -> float | None:
    """Return the seconds until the session's token expires, from the reply to it; None: never."""
    seconds = reply.get("expires_in") if isinstance(reply, dict) else None
    return seconds if isinstance(seconds, int | float) and seconds >= 0 else None


async def keep(
    left: float | None,
    send: Callable[[], Awaitable[float | None]],
    report: Callable[[Exception], None],
) -> None:
    """Renew the token again and again, until the call is cancelled.

    `left`: seconds until the first token expires; None: never. `send`: sends another token, and
    returns the seconds until that one expires. `report`: gets exceptions of `send`, which is then
    tried again after half of the remaining time. If no token can be sent in time, the server ends
    the session, and the next session begins with a new token.
    """
    loop = asyncio.get_running_loop()
    end, pause = 0.0, 0.0
    while True:
        if left is None:
            await asyncio.Event().wait()
        elif left >= 0:
            end, pause = loop.time() + left, left * SHARE
        await asyncio.sleep(min(max(pause, PAUSE_MIN), PAUSE_MAX))
        try:
            left = await send()
        except Exception as error:  # noqa: BLE001 - a token function's too: it is told, never lost
            report(error)
            left, pause = -1.0, (end - loop.time()) / 2
