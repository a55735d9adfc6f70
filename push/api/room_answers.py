"""Types of the API's answers about rooms: their sizes, their members, and what they keep."""

from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from push.api.answers import Count, From


class RoomRow(TypedDict):
    """One room and its size."""

    room: str
    sessions: Count


class RoomPage(TypedDict):
    """A page of the rooms."""

    count: Annotated[int, Meta(ge=0, description="Rooms in all.")]
    results: list[RoomRow]


class PositionState(TypedDict):
    """Position of a room with history: the offset of its newest message, and what it means."""

    room: str
    epoch: str
    offset: Count


class KeptRow(From):
    """One kept message of a room. `at`: when it got its offset, Unix time in seconds."""

    offset: Annotated[int, Meta(ge=1)]
    id: str
    op: int
    at: float
    body: Any


class KeptPage(TypedDict):
    """Kept messages of a room with history."""

    room: str
    epoch: str
    offset: Annotated[int, Meta(ge=0, description="Offset of the room's newest message.")]
    more: Annotated[bool, Meta(description="Whether further messages match.")]
    messages: list[KeptRow]


class Emptied(TypedDict):
    """Result of emptying a room's history."""

    room: str
    deleted: Annotated[int, Meta(ge=0, description="Messages that were forgotten.")]


class MemberRow(TypedDict):
    """One session in a room; in a room with presence, one key with its info."""

    key: str
    session: NotRequired[str]
    info: NotRequired[
        Annotated[dict[str, Any], Meta(description="What others in the room see of the key.")]
    ]


class MemberPage(TypedDict):
    """A room, and a page of the sessions in it; of the keys in it, if it has presence."""

    room: str
    sessions: Count
    count: Annotated[int, Meta(ge=0, description="Sessions in all, or keys in all.")]
    version: NotRequired[
        Annotated[str, Meta(description="Version of who is in the room, as clients get it.")]
    ]
    settling: NotRequired[
        Annotated[bool, Meta(description="Redis has lost its data, and keys may be missing yet.")]
    ]
    results: list[MemberRow]
