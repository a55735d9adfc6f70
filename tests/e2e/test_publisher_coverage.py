"""The publishers call every path of the API, with every parameter that its schema has."""

import asyncio
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from imgo_client import AsyncPublisher, Publisher, Push
from tests import NO_TLS, eventually
from tests.push.devices.push_service import Browser

from .harness import System
from .world import World, new_key, new_room

PREFIX = "/api/v1/"

Operation = tuple[str, str]  # method and path of the schema


class Recorder:
    """Requests that a publisher has sent, by the schema's operations, and the answers."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self.operations = {
            (method.upper(), path): description
            for path, item in schema["paths"].items()
            if path.startswith(PREFIX)
            for method, description in item.items()
        }
        self.sent: dict[Operation, set[str]] = {}  # names of parameters and of body members

    def record(self, response: httpx.Response, content: bytes) -> None:
        """Note a request; its answer must be one of the schema's."""
        request = response.request
        operation = self._operation_of(request)
        names = self.sent.setdefault(operation, set())
        names.update(request.url.params.keys())
        for line in request.content.splitlines():
            value = json.loads(line)
            for item in value if isinstance(value, list) else [value]:
                names.update(item, item.get("to", ()))
        self._check(self.operations[operation], response.status_code, content)

    def _operation_of(self, request: httpx.Request) -> Operation:
        path = request.url.raw_path.decode().partition("?")[0]
        matches = [
            (method, template)
            for method, template in self.operations
            if method == request.method
            and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
        ]
        # "pushes/stream" is a path of its own, and not the push of that id.
        return min(matches, key=lambda match: match[1].count("{"))

    def _check(self, description: dict[str, Any], status: int, content: bytes) -> None:
        whole = description["responses"][str(status)].get("content", {})
        if "application/json" in whole:
            form = {**whole["application/json"]["schema"], "components": self.schema["components"]}
            Draft202012Validator(form).validate(json.loads(content))

    def wanted(self, operation: Operation) -> set[str]:
        """Return the names of an operation's parameters, and of its body's members."""
        description = self.operations[operation]
        names = {
            parameter["name"]
            for parameter in description.get("parameters", ())
            if parameter["in"] == "query"
        }
        types = self.schema["components"]["schemas"]
        if "requestBody" in description:
            content = description["requestBody"]["content"].get("application/json", {"schema": {}})
            request = content["schema"].get("$ref", "").rpartition("/")[2] or "PushRequest"
            names |= set(types[request]["properties"])
            names |= set(types["Target"]["properties"]) if request == "PushRequest" else set()
        return names


def calls(key: str, room: str) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """Yield a call of each method, in an order in which each has something to find."""
    pushes = [
        Push(1, key=key, ttl=60, store=False, op=1000, dedupe_id=new_key()),
        Push(2, keys=[key, new_key()], send_at=60),
        Push(3, room=room, ensure=True, exclude=["5938fe7d-12"]),
        Push(5, room=room, collapse_key="score", version=1),
        Push(6, key=key, notify={"title": "Hi"}, notify_after=3_600),
        Push(4, all=True),
    ]
    page = {"limit": 10, "offset": 0}
    # Of a key without a session, which a new token would end.
    other = new_key()
    token = {"token": "", "expires_in": 60, "rooms": [room], "join": [room], "info": {"name": "Al"}}
    yield "create_token", [other], token
    yield "token", [other], {}
    yield "tokens", [], {**page, "key": other}
    yield "check", [], {}
    yield "push", [1], {"key": key}
    yield "push_many", [pushes], {}
    yield "stream", [pushes], {}
    yield "result", [], page
    yield "cancel", [], {}
    yield "push_many", [pushes], {}
    yield "cancel_by_dedupe_id", [pushes[0].dedupe_id], {}
    yield "key", [key], {}
    browser = Browser(f"https://fcm.googleapis.com/fcm/send/{other}")
    yield "register_device", [other, "fcm"], {"token": f"{other}:APA91b", "name": "phone"}
    yield "register_device", [other, "webpush"], {"subscription": browser.subscription}
    yield "devices", [other], page
    yield "delete_devices", [other, 2**62], {}
    yield "rooms", [], page
    yield "room", [room], page
    yield "room", [f"{room}/messages"], page
    yield "room_position", [f"kept-{room}"], {}
    yield "room_messages", [f"kept-{room}", 0, 9, 10, "oldest"], {}
    yield "empty_room", [f"kept-{room}"], {}
    yield "nodes", [], {}
    yield "stats", [], {}
    yield "kick", [key], {}
    yield "revoke_token", [other], {}


@pytest.fixture
async def recorder(world: World) -> Recorder:
    """A recorder with the schema of the running server."""
    return Recorder(await world.api.get("/api/schema/"))


@pytest.fixture(params=["embedded", "cluster"])
def system(request: pytest.FixtureRequest) -> System:
    """The API of a node, and that of a process of its own."""
    system: System = request.getfixturevalue(request.param)
    return system


@pytest.fixture
async def place(world: World) -> tuple[str, str]:
    """A key with a session in a room."""
    key, room = new_key(), new_room()
    await world.session(key, "text", rooms=[room, f"{room}/messages"])
    await world.wait_for_sessions(key, 1)  # nodes tell the registry of their sessions in batches
    for name in (room, f"{room}/messages"):
        await eventually(lambda name=name: is_in_a_room(world, name))
    return key, room


async def is_in_a_room(world: World, room: str) -> bool:
    """Whether the registry knows of a session in this room."""
    answer = await world.api.http.get("/api/v1/rooms", params={"room": room})
    return answer.status_code == 200


async def run_async(system: System, recorder: Recorder, key: str, room: str) -> dict[str, Any]:
    """Make all calls with an `AsyncPublisher`; return what each has returned."""

    async def hook(response: httpx.Response) -> None:
        recorder.record(response, await response.aread())

    answers: dict[str, Any] = {}
    options = {"trust_env": False, "verify": NO_TLS, "event_hooks": {"response": [hook]}}
    async with AsyncPublisher(system.api_url, system.api_key, **options) as publisher:
        for name, args, kwargs in calls(key, room):
            ids = [answers["push"].id] if name in ("result", "cancel") else []
            answer = getattr(publisher, name)(*ids, *args, **kwargs)
            is_stream = name == "stream"
            answers[name] = [one async for one in answer] if is_stream else await answer
    return answers


def run_plain(system: System, recorder: Recorder, key: str, room: str) -> dict[str, Any]:
    """Make all calls with a `Publisher`; return what each has returned."""

    def hook(response: httpx.Response) -> None:
        recorder.record(response, response.read())

    answers: dict[str, Any] = {}
    options = {"trust_env": False, "verify": NO_TLS, "event_hooks": {"response": [hook]}}
    with Publisher(system.api_url, system.api_key, **options) as publisher:
        for name, args, kwargs in calls(key, room):
            ids = [answers["push"].id] if name in ("result", "cancel") else []
            answer = getattr(publisher, name)(*ids, *args, **kwargs)
            answers[name] = list(answer) if name == "stream" else answer
    return answers


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_publisher_calls_every_path_with_every_parameter(
    world: World, recorder: Recorder, place: tuple[str, str], kind: str
) -> None:
    if kind == "async":
        answers = await run_async(world.system, recorder, *place)
    else:
        answers = await asyncio.to_thread(run_plain, world.system, recorder, *place)
    public = inspect.getmembers(Publisher, inspect.isfunction)
    assert answers.keys() == {name for name, _ in public if not name.startswith("_")} - {"close"}
    assert recorder.sent.keys() == recorder.operations.keys()
    for operation in recorder.operations:
        missing = recorder.wanted(operation) - recorder.sent[operation]
        assert not missing, operation
    assert all(one.id for one in [*answers["push_many"], *answers["stream"]])
    assert (answers["kick"], answers["tokens"]["count"]) == (1, 1)
    assert (answers["devices"]["count"], answers["delete_devices"]) == (2, 0)
    assert answers["token"]["join"] == [place[1]]
