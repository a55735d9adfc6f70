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
from imgo_client.messages import Message
from imgo_client.publisher import AsyncPublisher, Publisher
from imgo_client.pushes import Push, Result
from imgo_client.receipts import FileSeen, Seen

__all__ = [
    "ApiError",
    "AsyncPublisher",
    "BadAnswer",
    "BadRequest",
    "Client",
    "Closed",
    "Ending",
    "FileSeen",
    "Forbidden",
    "ImgoError",
    "Message",
    "NoAnswer",
    "NotAuthenticated",
    "NotFound",
    "NotOpen",
    "OutcomeUnknown",
    "ProtocolError",
    "PublishError",
    "Publisher",
    "Push",
    "Refused",
    "Result",
    "Retry",
    "Seen",
    "TooLarge",
    "TooManyRequests",
    "Unavailable",
    "Unreachable",
    "__version__",
]

__version__ = "0.1.0"
