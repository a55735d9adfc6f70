"""Types of the answers on the paths of imgo (Go)."""

from typing import Annotated, Literal, NotRequired, TypedDict

from msgspec import Meta


class Ret(TypedDict):
    """Answer of imgo (Go). 1: done; 1001: unknown server; 65533: API key or token;
    65534: parameter; 65535: internal error.
    """

    ret: Literal[1, 1001, 65533, 65534, 65535]
    type: NotRequired[
        Annotated[
            Literal["urn:imgo:outcome_unknown"],
            Meta(description="The push may be accepted or not."),
        ]
    ]


class RoomCount(TypedDict):
    """One room and its size. A room that is not a number keeps its name."""

    RoomId: int | str
    Count: int


class ServerCount(TypedDict):
    """One server and its sessions."""

    Server: int
    Count: int


class RoomCounts(TypedDict):
    """Sizes of rooms."""

    ret: Literal[1]
    data: list[RoomCount]


class ServerCounts(TypedDict):
    """Sessions of servers."""

    ret: Literal[1]
    data: list[ServerCount]


class PendingRow(TypedDict):
    """One message that is pending."""

    msg: Annotated[object, Meta(description="As it was pushed; text when it is not JSON.")]
    mid: int
    gid: Literal[0]


class PendingRows(TypedDict):
    """What is pending, in order."""

    msgs: list[PendingRow]


class Messages(TypedDict):
    """What is pending for a user."""

    ret: Literal[0]
    data: PendingRows
