"""One operation of the API as the schema tells it, and the types that requests and answers have.

The types are those that the views use: msgspec's structs of requests (`push/api/schemas.py`) and
the typed dicts of answers (`push/api/answers.py`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from imgo_site.conf import conf, known_names

JSON = "application/json"
NDJSON = "application/x-ndjson"
PROBLEM = "application/problem+json"
BINARY = "application/octet-stream"

Schema = dict[str, Any]


@dataclass(frozen=True)
class Content:
    """A body, of a request or an answer: its schema, or the type that has it, and examples."""

    kind: Any
    examples: Mapping[str, Any]
    media_type: str = JSON


@dataclass(frozen=True)
class Answer:
    """One status of an operation; no content for an answer without a body."""

    description: str
    contents: tuple[Content, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """A parameter in the query or the path. Names of settings in `schema` stand for values."""

    name: str
    schema: Schema
    description: str
    example: Any
    place: Literal["query", "path"] = "query"
    is_required: bool = False


@dataclass(frozen=True)
class Operation:
    """What the schema says of one method of a view.

    `errors`: statuses besides those that every operation with its authentication has.
    """

    id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    more: str = ""
    parameters: tuple[Parameter, ...] = ()
    request: tuple[Content, ...] = ()
    errors: Mapping[int, str] = field(default_factory=dict)
    needs_body: bool = True


# What msgspec tells of an int that may be written as 5.0, which in a schema is an integer.
WHOLE = [{"type": "integer"}, {"type": "number"}]


def ref(kind: Any) -> Schema:
    """The reference to the component of a type."""
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def schema_of(kind: Any) -> Schema:
    """The schema of a content: a schema as it is, or a reference to a type's."""
    return resolved(kind) if isinstance(kind, dict) else ref(kind)


def components(kinds: Iterable[Any]) -> Schema:
    """The schemas of types and of all that they are made of, with the values of settings."""
    found: Schema
    _, found = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for schema in found.values():
        schema.pop("title", None)  # the component's name, again
    result: Schema = resolved(found)
    return result


def resolved(part: Any) -> Any:
    """`part` of a schema with what `told` added in its place, and settings as their values."""
    if isinstance(part, list):
        return [resolved(item) for item in part]
    if not isinstance(part, dict):
        return part
    if part.get("anyOf") == WHOLE:
        part = {"type": "integer"} | {name: part[name] for name in part if name != "anyOf"}
    names = known_names()
    added = {
        name: getattr(conf, value) if isinstance(value, str) and value in names else resolved(value)
        for name, value in part.get("x-imgo", {}).items()
    }
    return {name: resolved(value) for name, value in part.items() if name != "x-imgo"} | added
