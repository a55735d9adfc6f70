"""The default receiver of upstream messages (op 4)."""

from typing import Any

from accounts.identity import Identity


async def default_receiver(identity: Identity, op: int, body: Any) -> Any:  # noqa: ARG001
    """Answer every upstream message with an empty object.

    A receiver of yours gets the identity of the sender, the op, and the body: the JSON value
    where the body is JSON, else text, else bytes. What it returns is the body of the reply:
    None for `{}`, bytes as they are, anything else as JSON. If it raises an `ImgoError`, the
    reply is that error; any other exception is logged and answered as an internal error.
    """
    return None
