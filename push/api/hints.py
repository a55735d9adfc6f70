"""What the schema shows for a member of a request, besides its type."""

from typing import Any

from msgspec import Meta

# The rules of `check_name`.
NO_CONTROL = r"^[^\u0000-\u001f\u007f]*$"


def schema_hints(description: str = "", **keywords: Any) -> Meta:
    """Return what the schema at /api/schema/ shows for a member, besides its type.

    msgspec does not check it: `as_push` and `check_name` do. The schema shows the value of a
    setting in place of the setting's name.
    """
    return Meta(description=description or None, extra_json_schema={"x-imgo": keywords})
