"""The types of the publishers' answers are those that the server's schema has."""

import inspect
from typing import Any, is_typeddict

import msgspec
import pytest

from imgo_client import AsyncPublisher, Publisher, answers
from push.api.docs.generator import Generator

# What only people read, or only the server checks.
NOTES = {"description", "title", "minimum", "pattern", "format", "$schema", "examples"}
TYPES = {
    name: kind
    for name, kind in vars(answers).items()
    if is_typeddict(kind) and not name.startswith("_")
}


def bare(schema: Any) -> Any:
    """Return a schema without notes; the order of its lists does not matter."""
    if isinstance(schema, dict):
        return {
            name: bare(part)
            for name, part in schema.items()
            if name not in NOTES or not isinstance(part, str | int)
        }
    if isinstance(schema, list):
        return sorted(map(bare, schema), key=repr)
    return schema


@pytest.fixture(scope="module")
def components() -> dict[str, Any]:
    """The types of the server's schema."""
    return dict(Generator().get_schema()["components"]["schemas"])


@pytest.mark.parametrize("name", TYPES)
def test_answers_type_is_that_of_the_servers_schema(name: str, components: dict[str, Any]) -> None:
    _, own = msgspec.json.schema_components(
        [TYPES[name]], ref_template="#/components/schemas/{name}"
    )
    assert bare(own[name]) == bare(components[name])


def methods(kind: type) -> dict[str, Any]:
    """Return the public methods of a publisher."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: method for name, method in found if not name.startswith("_")}


def test_both_publishers_have_the_same_methods_and_arguments() -> None:
    plain, other = methods(Publisher), methods(AsyncPublisher)
    assert plain.keys() == other.keys()
    for name, method in plain.items():
        own, of_async = inspect.signature(method), inspect.signature(other[name])
        assert list(own.parameters) == list(of_async.parameters), name
        if name != "stream":
            assert own.parameters == of_async.parameters, name
            assert own.return_annotation == of_async.return_annotation, name
