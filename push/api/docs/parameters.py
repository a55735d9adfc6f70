"""Tags, parameters and answers that several operations of the API share."""

from typing import Any

from push.api import paging
from push.api.docs.operation import Answer, Content, Parameter
from push.api.schemas import NAME

LOOKING, ACTING = "Look", "Act"

NAME_SCHEMA = {"type": "string", **NAME}
KEY = Parameter("key", NAME_SCHEMA, "A subscriber key. It may contain slashes.", "u1", "path", True)
PAGE = (
    Parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": paging.PAGE_MAX, "default": 100},
        "Number of rows in the page.",
        100,
    ),
    Parameter(
        "offset",
        {"type": "integer", "minimum": 0, "maximum": paging.OFFSET_MAX, "default": 0},
        "Number of rows before the page.",
        0,
    ),
)

MISTAKE = "The request is invalid; `detail` says what to change."
LINE_END = "The key contains a line end, which no path can have."
LARGE = "A size or a count exceeds its limit; `detail` names it."


def ok(description: str, kind: Any, status: int = 200, **examples: Any) -> dict[int, Answer]:
    """Return the answer of success. `kind`: its type; `examples`: by name."""
    return {status: Answer(description, (Content(kind, examples),))}
