"""The schema tells of everything that there is, and its examples are true."""

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
import yaml
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.urls import URLPattern
from jsonschema import Draft202012Validator, ValidationError
from rest_framework.test import APIClient

from accounts.models import SCOPES
from push.accept.accept import push_to_key
from push.api import urls
from push.api.base import V1View
from push.api.docs.generator import Generator
from push.api.docs.schema import OPERATIONS

METHODS = ("get", "post", "put", "patch", "delete")


def generate() -> dict:
    return APIClient().get("/api/schema/").json()


SCHEMA = generate()
EVERYTHING = [
    pytest.param(path, method, told, id=f"{method} {path}")
    for path, item in SCHEMA["paths"].items()
    for method, told in item.items()
]
every_operation = pytest.mark.parametrize(("path", "method", "told"), EVERYTHING)


class Example(NamedTuple):
    """An example, of a request where there is no status."""

    path: str
    method: str
    status: str
    media_type: str
    schema: dict
    value: Any

    def check(self, value: Any) -> None:
        """Raises `ValidationError` unless the schema allows this value in the example's place."""
        whole = {**self.schema, "components": SCHEMA["components"]}
        Draft202012Validator(whole).validate(value)


def test_query_parameters_in_the_schema_are_those_that_views_accept():
    for (view, method), operation in OPERATIONS.items():
        if issubclass(view, V1View):
            told = {one.name for one in operation.parameters if one.place == "query"}
            assert told == set(view.query_names.get(method, ())), (view, method)


def examples_of(path: str, method: str, told: dict) -> Iterator:
    """Each example of an operation as the parameter of a test."""
    parts = {"": told.get("requestBody", {}), **told["responses"]}
    for status, part in parts.items():
        for media_type, content in part.get("content", {}).items():
            place = (path, method, status, media_type, content["schema"])
            for name, example in content.get("examples", {}).items():
                title = f"{method} {path} {status or 'request'} {media_type} {name}"
                yield pytest.param(Example(*place, example["value"]), id=title)


EXAMPLES = [example for param in EVERYTHING for example in examples_of(*param.values)]
REQUESTS = [param for param in EXAMPLES if not param.values[0].status]


@pytest.mark.long
def test_the_command_finds_nothing_wrong():
    out = StringIO()
    call_command(
        "spectacular",
        generator_class="push.api.docs.generator.Generator",
        validate=True,
        fail_on_warn=True,
        stdout=out,
    )
    assert yaml.load(out.getvalue(), yaml.CSafeLoader) == SCHEMA


def test_every_path_and_method_is_there():
    there = {(path, method) for path, item in SCHEMA["paths"].items() for method in item}
    wanted = {("/healthz", "get"), ("/readyz", "get")}
    for pattern in urls.urlpatterns:
        assert isinstance(pattern, URLPattern)
        path = "/" + str(pattern.pattern).replace("<path:", "{").replace("<str:", "{")
        view = pattern.callback.cls
        wanted |= {(path.replace(">", "}"), name) for name in METHODS if hasattr(view, name)}
    assert there == wanted
    assert len(OPERATIONS) == len(wanted)


def test_names_of_operations_are_their_own():
    names = [param.values[2]["operationId"] for param in EVERYTHING]
    assert len(set(names)) == len(names)


@every_operation
def test_an_operation_is_told_of(path, method, told):
    assert told["summary"]
    assert told["tags"][0] in [tag["name"] for tag in SCHEMA["tags"]]
    for place in (told.get("requestBody"), *told["responses"].values()):
        contents = (place or {}).get("content", {}).values()
        assert not contents or any(content.get("examples") for content in contents)
    for parameter in told.get("parameters", []):
        assert parameter["description"]
        assert parameter["examples"]


def test_operations_name_their_scopes():
    for param in EVERYTHING:
        assert_scope_is_named(param.values[2])


def assert_scope_is_named(told: dict) -> None:
    if told["security"] == [{}]:
        assert "No API key is needed." in told["description"]
        assert "403" not in told["responses"]
    else:
        ways = [scope for one in told["security"] for (scope,) in one.values()]
        scopes = list(dict.fromkeys(ways))
        assert set(scopes) <= set(SCOPES)
        assert f"Scope: `{'` or `'.join(scopes)}`." in told["description"]
        assert set(told["responses"]) >= {"401", "403", "503"}


def test_errors_have_one_shape():
    for param in EVERYTHING:
        assert_errors_have_one_shape(*param.values)


def assert_errors_have_one_shape(path: str, method: str, told: dict) -> None:
    ours = {"application/problem+json": {"$ref": "#/components/schemas/Problem"}}
    imgos = {"application/json": {"$ref": "#/components/schemas/Ret"}}
    goims = {"application/json": {"$ref": "#/components/schemas/Code"}}
    expected = imgos if path.startswith("/1/") else goims if path.startswith("/goim/") else ours
    for status, answer in told["responses"].items():
        if status >= "400" and path not in {"/healthz", "/readyz"}:
            shape = {name: content["schema"] for name, content in answer["content"].items()}
            assert shape == expected, (method, path)


@every_operation
def test_an_example_is_as_the_schema_says(path, method, told):
    for param in examples_of(path, method, told):
        (example,) = param.values
        example.check(example.value)


def test_a_wrong_example_is_found():
    example = next(one.values[0] for one in REQUESTS if one.values[0].path == "/api/v1/pushes")
    for to in ({"key": "a", "room": "b"}, {}, {"all": False}, {"key": ""}, {"keys": []}):
        with pytest.raises(ValidationError):
            example.check({**example.value, "to": to})


@pytest.mark.parametrize("example", REQUESTS)
def test_an_example_of_a_request_works(api, imgo, example):
    imgo(WEBPUSH_PRIVATE_KEY="k")  # devices can be registered
    told = SCHEMA["paths"][example.path][example.method]
    parameters = [one for one in told.get("parameters", []) if one["in"] == "query"]
    query = urlencode(
        {p["name"]: p["examples"]["Example"]["value"] for p in parameters}, doseq=True
    )
    data = example.value
    if example.media_type == "application/x-www-form-urlencoded":
        data = urlencode(data)
    elif not isinstance(data, str):
        data = json.dumps(data)
    kind = example.media_type
    answer = api.generic(example.method, f"{example.path}?{query}", data, content_type=kind)
    assert 200 <= answer.status_code < 300
    assert str(answer.status_code) in told["responses"]


def test_a_record_has_what_is_told_and_no_more(api):
    one = push_to_key("u1", 1)
    record = api.get(f"/api/v1/pushes/{one}").json()
    schema = SCHEMA["components"]["schemas"]
    assert set(record) <= set(schema["PushRecord"]["properties"])
    assert set(record) >= set(schema["PushRecord"]["required"])
    assert set(record["results"][0]) <= set(schema["DeliveryRecord"]["properties"])


def test_limits_are_the_settings(imgo):
    imgo(MAX_KEYS=3, MAX_PUSHES=4, MAX_BODY=5, MAX_TTL=6, MAX_REQUEST=7, MAX_ROOMS_PER_SESSION=8)
    found = generate()
    schemas = found["components"]["schemas"]
    assert schemas["PushRequest"]["properties"]["ttl"]["anyOf"][0]["maximum"] == 6
    assert schemas["TokenRequest"]["properties"]["join"]["anyOf"][0]["maxItems"] == 8
    push = found["paths"]["/api/v1/pushes"]["post"]
    for text in ("at most 4 of them", "at most 3 keys", "at most 5 bytes", "at most 7."):
        assert text in push["description"]
    assert "At most 3 users" in found["paths"]["/1/pushs"]["post"]["description"]
    assert "any 5 bytes at most" in found["paths"]["/1/push"]["post"]["description"]
    assert "x-imgo" not in json.dumps(found)


def test_the_schema_is_json_or_yaml(client):
    for query, accept, kind in (
        ("", "*/*", "application/json"),
        ("?format=json", "application/yaml", "application/json"),
        ("?format=yaml", "*/*", "application/yaml"),
        ("", "application/yaml", "application/yaml"),
        ("", "text/html", "application/json"),
    ):
        answer = client.get(f"/api/schema/{query}", headers={"accept": accept})
        assert answer.status_code == 200
        assert answer["Content-Type"].split(";")[0] == kind
        is_json = kind == "application/json"
        # CSafeLoader is ten times faster than Python's, and JSON's reader another ten times.
        found = answer.json() if is_json else yaml.load(answer.content, yaml.CSafeLoader)
        assert found == SCHEMA


@pytest.mark.parametrize("query", ["format=xml", "format=", "format=openapi"])
def test_there_is_no_other_format(client, query):
    answer = client.get(f"/api/schema/?{query}")
    assert answer.status_code == 400
    assert answer.json()["detail"] == "format must be json or yaml."


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/api/docs/")
    assert page.status_code == 200
    assert "default-src 'none'; script-src 'self';" in page["Content-Security-Policy"]
    text = page.content.decode()
    assert "http" not in text.replace("http-equiv", "")
    files = [word.split('"')[0] for word in text.split("/static/")[1:]]
    assert len(files) >= 3
    assert all(finders.find(name) for name in files)
    assert "<script>" not in text  # which the policy would not run
    assert 'data-schema="/api/schema/"' in text


@pytest.mark.parametrize("path", ["/api/docs/", "/api/schema/", "/api/schema/?format=yaml"])
def test_an_error_is_json_whatever_the_page_is(client, path):
    for method in ("POST", "DELETE"):
        answer = client.generic(method, path, headers={"accept": "application/yaml"})
        assert answer.status_code == 405
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["detail"] == f'Method "{method}" not allowed.'
    assert client.options(path).status_code in {200, 405}


def test_schema_asked_for_twice_is_rendered_once(client, imgo, monkeypatch):
    imgo(MAX_KEYS=77)  # settings that no other test has asked with
    calls = []
    make = Generator.get_schema
    monkeypatch.setattr(Generator, "get_schema", lambda self: calls.append(1) or make(self))
    first, second = (client.get("/api/schema/?format=yaml") for _ in range(2))
    assert first.content == second.content
    assert b"at most 77 keys" in first.content
    assert calls == [1]
