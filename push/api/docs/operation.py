"""Types for the schema entry of one operation, and the components of the schema.

The components are the types that the views use: msgspec structs of requests
(`push/api/schemas.py`) and typed dicts of answers (`push/api/*answers.py`).
"""

from collections.abc import Container, Iterable, Mapping
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
    """Body of a request or an answer, with examples by name.

    `kind`: a JSON schema as a dict, or a type that is a component of the schema.
    """

    kind: Any
    examples: Mapping[str, Any]
    media_type: str = JSON


@dataclass(frozen=True)
class Answer:
    """Answer of an operation with one status. `contents` is empty if it has no body."""

    description: str
    contents: tuple[Content, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """Parameter in the query or the path.

    A name of a setting in `schema` is replaced by the setting's value.
    """

    name: str
    schema: Schema
    description: str
    example: Any
    place: Literal["query", "path"] = "query"
    is_required: bool = False


@dataclass(frozen=True)
class Operation:
    """Schema entry of one method of a view.

    `errors`: texts by status, besides the statuses of every operation with that authentication.
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


# msgspec's schema of a `Integer`, an int that may be written as 5.0. JSON Schema calls that an
# integer.
WHOLE = [{"type": "integer"}, {"type": "number"}]


def ref(kind: Any) -> Schema:
    """Return the reference to the component of a type."""
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def schema_of(kind: Any) -> Schema:
    """Return the schema of a content's `kind`: a dict resolved, or a reference for a type."""
    return resolved(kind) if isinstance(kind, dict) else ref(kind)


def components(kinds: Iterable[Any]) -> Schema:
    """Return the schemas of types and of all types within them, with the values of settings."""
    schemas: Schema
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        schema.pop("title", None)  # repeats the component's name
    result: Schema = resolved(schemas)
    return result


def resolved(part: Any) -> Any:
    """Return a part of a schema, with the keywords that `schema_hints` added merged into it.

    Names of settings are replaced by their values.
    """
    if isinstance(part, list):
        return [resolved(item) for item in part]
    if not isinstance(part, dict):
        return part
    if part.get("anyOf") == WHOLE:
        part = {"type": "integer"} | {name: part[name] for name in part if name != "anyOf"}
    names = known_names()
    added = {
        name: resolved(_with_settings(value, names))
        for name, value in part.get("x-imgo", {}).items()
    }
    return {name: resolved(value) for name, value in part.items() if name != "x-imgo"} | added


def _with_settings(part: Any, names: Container[str]) -> Any:
    """Return a value of a keyword, with names of settings replaced by their values."""
    if isinstance(part, str):
        return getattr(conf, part) if part in names else part
    if isinstance(part, list):
        return [_with_settings(item, names) for item in part]
    if isinstance(part, dict):
        return {name: _with_settings(value, names) for name, value in part.items()}
    return part
