"""Client and publisher for the imgo push server."""

from imgo_client.client import Client
from imgo_client.errors import (
    ApiError,
    BadAnswer,
    BadRequest,
    Closed,
    Forbidden,
    ImgoError,
    NoAnswer,
    NotAuthenticated,
    NotFound,
    NotOpen,
    OutcomeUnknown,
    ProtocolError,
    PublishError,
    Refused,
    TooLarge,
    TooManyRequests,
    Unavailable,
    Unreachable,
)
from imgo_client.events import Ending
from imgo_client.exchange import Retry
from imgo_client.members import Changed, Member
from imgo_client.messages import Message
from imgo_client.presence import Presence
from imgo_client.publisher import AsyncPublisher, Publisher
from imgo_client.pushes import Push, Result
from imgo_client.receipts import FileSeen, Seen
from imgo_client.room import History, KeptMessage, Room
from imgo_client.streams import Gap, Position, Recovered

__all__ = [
    "ApiError",
    "AsyncPublisher",
    "BadAnswer",
    "BadRequest",
    "Changed",
    "Client",
    "Closed",
    "Ending",
    "FileSeen",
    "Forbidden",
    "Gap",
    "History",
    "ImgoError",
    "KeptMessage",
    "Member",
    "Message",
    "NoAnswer",
    "NotAuthenticated",
    "NotFound",
    "NotOpen",
    "OutcomeUnknown",
    "Position",
    "Presence",
    "ProtocolError",
    "PublishError",
    "Publisher",
    "Push",
    "Recovered",
    "Refused",
    "Result",
    "Retry",
    "Room",
    "Seen",
    "TooLarge",
    "TooManyRequests",
    "Unavailable",
    "Unreachable",
    "__version__",
]

__version__ = "0.1.0"
