"""Encoding of the frames that answer one client, as its link sends them."""

from push.session.outgoing import EVENT_NAME, Kind, Wrapper
from push.wire import Op, encode_binary, encode_event, encode_text


def encode_reply(
    link: Wrapper, kind: Kind, op: Op, seq: int, *, body: bytes = b"", ver: int = 1
) -> bytes:
    """Return one frame of a session of this kind, wrapped for its link.

    `body`: JSON or empty if the kind's bodies are JSON, else any bytes.
    """
    if kind is Kind.EVENTS:
        return encode_event(encode_text(op, seq, body, ver), name=EVENT_NAME)
    if kind is Kind.TEXT:
        return link.wrap(encode_text(op, seq, body, ver), True)
    return link.wrap(encode_binary(op, seq, body, ver), False)
