"""What the tests of the wire draw frames, splits and JSON from."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from push.wire import Frame, FrameError, encode_binary
from tests.longer_proofs import examples

MAX_BODY = 64  # bytes: small, so that random lengths fall on both sides of it

# No deadline: a busy CI machine is no bug.
proves = settings(deadline=None, max_examples=examples(200))

int16 = st.integers(-(2**15), 2**15 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
ids = st.just(0) | st.integers(1, 2**63 - 1)
bodies = st.binary(max_size=MAX_BODY)
frames = st.builds(Frame, ver=int16, op=int32, seq=int32, body=bodies, id=ids)

# Lone surrogates included: a text message may spell them as escapes.
any_text = st.text(st.characters(codec=None), max_size=40)


def _json_with(floats: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | floats | any_text,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
        max_leaves=8,
    )


json_values = _json_with(st.floats(allow_nan=False, allow_infinity=False))
# With the NaN and Infinity that Python writes and JSON has not.
nearly_json_values = _json_with(st.floats())


def encoded(frame: Frame) -> bytes:
    return encode_binary(frame.op, frame.seq, frame.body, frame.ver, frame.id)


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    """`data` in pieces, cut at `places` (taken modulo its length)."""
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return (data[start:end] for start, end in pairwise(edges))


def attempt(decode: Callable[..., Any], *args: Any) -> tuple[Any, FrameError | None]:
    """What `decode` returned, or None and the FrameError it raised; any other error passes."""
    try:
        return decode(*args), None
    except FrameError as error:
        return None, error


def bytes_until_refused(
    feed: Callable[[bytes], list[Frame]], data: bytes
) -> tuple[int, FrameError]:
    """Feed a byte at a time: how many it took to raise, and what was raised."""
    for count in range(1, len(data) + 1):
        got, error = attempt(feed, data[count - 1 : count])
        if error is not None:
            return count, error
        assert got == []
    raise AssertionError("nothing was refused")
