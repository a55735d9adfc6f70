"""Frames that a client sends to its session by POST."""

import asyncio
import json
import time
from functools import partial
from typing import Any

import jwt
import pytest
from django.contrib.auth import get_user_model
from django.test import Client, RequestFactory

from imgo_site.asgi import application
from imgo_site.errors import Unavailable
from push.accept.accept import Push
from push.connect.posted_frames import WAITING_MAX, PostedFrames
from push.events.views import PostedFrameView
from push.metrics import definitions as metrics
from push.node import stream_joins
from push.status.instance import INSTANCE
from push.wire import Frame, Op
from tests import eventually, in_thread
from tests.push.conftest import get_node, push_now
from tests.push.connect.test_room_recovery import MISTAKES
from tests.push.events.clients import PATH
from tests.push.events.test_stream import publish, to_key


async def post(session: str, frame: object, token: str = "t", **headers: str):
    body = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
    headers.setdefault("HTTP_AUTHORIZATION", f"Bearer {token}")
    send = partial(Client().post, f"{PATH}/{session}", body, "application/json", **headers)
    return await in_thread(send)


async def ask(one, op: int, body: object = None):
    """The reply's body to a frame."""
    answer = await post(one.session, {"op": op, "seq": 7, "body": body})
    assert answer.status_code == 202, answer.content
    frame = await one.event()
    assert (frame["op"], frame["seq"]) == (op + 1, 7)
    return frame["body"]


async def test_a_session_joins_leaves_asks_and_reads_history(stream):
    one = await stream()
    await publish(1, 2)
    assert await ask(one, Op.HEARTBEAT) == {}
    assert (await ask(one, Op.JOIN, {"chat-1": {"rewind": 1}})).keys() == {"epoch", "offset"}
    assert (await one.event())["offset"] == 2
    page = await ask(one, Op.HISTORY, {"room": "chat-1", "limit": 2})
    assert [row["offset"] for row in page["messages"]] == [2, 1]
    assert await ask(one, Op.SEND, "hello") == {}
    assert await ask(one, Op.SUB, [1001]) == [1001]
    assert await ask(one, Op.LEAVE, "chat-1") == {}
    assert (await ask(one, Op.JOIN, ""))["error"]["code"] == "bad_request"


async def test_a_join_by_post_is_told_of_its_mistakes_and_positions(stream):
    one = await stream()
    await publish(1, 2)
    for rooms in MISTAKES:
        assert (await ask(one, Op.JOIN, rooms))["error"]["code"] == "bad_request"
    epoch = (await ask(one, Op.JOIN, {"chat-1": {}}))["epoch"]
    for wrong in ({"epoch": "other", "offset": 1}, {"epoch": epoch, "offset": 3}):
        await ask(one, Op.LEAVE, "chat-1")
        assert (await ask(one, Op.JOIN, {"chat-1": wrong}))["recovered"] is False


async def test_an_acknowledgement_settles_a_message(stream):
    from offline.models import Pending

    one = await stream("ack=1")
    number = await to_key(b"1")
    await one.event()
    assert (await post(one.session, {"op": Op.ACK, "body": [str(number)]})).status_code == 202
    await eventually(lambda: in_thread(lambda: not Pending.objects.exists()))


async def test_a_room_that_is_joined_later_is_not_resumed(stream):
    one = await stream("rooms=chat-1")
    await one.until_id("1,", ".0")
    await ask(one, Op.JOIN, {"chat-2": {}})
    await publish(1, room="chat-2")
    await publish(1, room="chat-1")
    found: list = []
    while len(found) < 2:
        block = await one.block()
        found += [block] if block.data else []
    assert [(block.value["room"], block.id) for block in found] == [
        ("chat-2", None),
        ("chat-1", None),
    ]
    await one.until_id("1,", ".1")
    assert one.last_id.count(",") == 2


async def test_a_room_that_was_left_is_in_no_id(stream):
    one = await stream("rooms=chat-1&rooms=chat-2")
    await ask(one, Op.LEAVE, "chat-2")
    while one.last_id.count(",") != 2:  # the block may have come before the reply
        await one.block()


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (b"", 400),
        (b"\xff", 400),
        (b"[]", 400),
        (b"{}", 400),
        ({"op": 8, "body": "t"}, 400),
        ({"op": 1001}, 400),
        ({"op": 4, "body": "x" * 2_000}, 413),
    ],
)
async def test_what_is_no_frame_of_a_client_is_refused(stream, frame, status):
    one = await stream()
    assert (await post(one.session, frame)).status_code == status
    assert await ask(one, Op.HEARTBEAT) == {}


async def test_a_frame_with_another_token_may_be_long(stream):
    one = await stream()
    assert await ask(one, Op.AUTH, {"token": "t", "more": "x" * 8_000}) == {}


async def test_a_session_takes_frames_of_its_own_client_only(stream):
    one = await stream()
    frame = {"op": Op.HEARTBEAT}
    assert (await post(one.session, frame, "wrong")).status_code == 401
    assert (await post(one.session, frame, "t2")).status_code == 404
    assert (await post("ab-1", frame)).status_code == 404
    answer = await post(one.session, frame, HTTP_AUTHORIZATION="")
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert await ask(one, Op.HEARTBEAT) == {}


async def test_frame_at_its_own_node_needs_neither_registry_nor_layer(stream, monkeypatch):
    one, other = await stream(), await stream(token="t2")

    def fail(*_: object) -> None:
        raise AssertionError

    for name in ("get_registry", "publish"):
        monkeypatch.setattr(f"push.events.views.{name}", fail)

    async def post_here(session: str, frame: dict) -> int:
        data, header = json.dumps(frame), {"HTTP_AUTHORIZATION": "Bearer t"}
        request = RequestFactory().post(PATH, data, "application/json", **header)
        request.scope = {INSTANCE: application.instance}
        return (await in_thread(PostedFrameView.as_view(), request, session=session)).status_code

    assert await post_here(one.session, {"op": Op.HEARTBEAT, "seq": 3}) == 202
    assert (await one.event())["seq"] == 3
    assert await post_here(other.session, {"op": Op.HEARTBEAT}) == 404


async def test_a_login_and_a_jwt_are_verified_for_a_frame_too(stream, client, imgo, settings):
    def sign_in() -> tuple[str, str]:
        user = get_user_model().objects.create_user("ann")
        browser = Client()
        browser.force_login(user)
        return str(user.pk), f"sessionid={browser.cookies['sessionid'].value}"

    _, cookie = await in_thread(sign_in)
    ours = {"HTTP_AUTHORIZATION": "", "HTTP_COOKIE": cookie}
    one = client()
    assert await one.open("", cookie=cookie, **{"sec-fetch-site": "same-origin"}) == 200
    await one.opened()
    frame = {"op": Op.HEARTBEAT}
    for more, status in (
        ({"HTTP_SEC_FETCH_SITE": "same-origin"}, 202),
        ({"HTTP_ORIGIN": "http://localhost", "HTTP_HOST": "localhost"}, 202),
        ({"HTTP_ORIGIN": "https://page.example"}, 401),
        ({}, 401),
    ):
        answer = await post(one.session, frame, **ours, **more)
        assert answer.status_code == status, answer.content
    imgo(JWT_SECRET="s" * 32, PARTITIONS=1)
    token = jwt.encode({"sub": "u9", "exp": int(time.time()) + 60}, "s" * 32, "HS256")
    two = await stream("", token)
    assert (await post(two.session, frame, token)).status_code == 202
    assert (await two.event())["op"] == Op.HEARTBEAT_REPLY


async def test_a_frame_for_another_key_is_dropped_by_the_node(stream):
    one = await stream()
    node = await get_node()
    (session,) = node.hub.sessions.values()
    message = {"type": "imgo.frame", "group": "n", "session": session.id, "key": "u2"}
    node.hub.handle({**message, "ver": 1, "op": 2, "seq": 1, "body": b""})
    node.hub.handle({**message, "key": "u1", "ver": 1, "op": 2, "seq": 2, "body": b""})
    assert (await one.event())["seq"] == 2


async def test_a_frame_is_refused_while_a_service_is_away(stream, monkeypatch):
    one = await stream()

    def fail(*_: object) -> None:
        raise Unavailable("Redis is away.")

    with monkeypatch.context() as patch:
        patch.setattr("push.events.views.get_registry", fail)
        answer = await post(one.session, {"op": Op.HEARTBEAT})
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    monkeypatch.setattr("push.events.views.publish", fail)
    assert (await post(one.session, {"op": Op.HEARTBEAT})).status_code == 503


async def test_frame_for_a_node_that_receives_nothing_is_refused(stream, monkeypatch):
    one = await stream()
    monkeypatch.setattr("push.events.views.publish", lambda *_: 0)  # no receiver
    answer = await post(one.session, {"op": Op.HEARTBEAT})
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")


async def test_many_frames_at_once_are_all_accepted(stream):
    one = await stream()
    frames = [{"op": Op.HEARTBEAT, "seq": number} for number in range(60)]
    answers = await asyncio.gather(*(post(one.session, frame) for frame in frames))
    assert {answer.status_code for answer in answers} == {202}
    assert {(await one.event())["seq"] for _ in frames} == set(range(60))


@pytest.fixture
def gate(monkeypatch) -> asyncio.Event:
    """Sessions are sent what they have missed of their rooms once this is set."""
    gate, real_finish = asyncio.Event(), stream_joins.finish

    async def finish_late(*args: Any) -> None:
        await gate.wait()
        await real_finish(*args)

    monkeypatch.setattr(stream_joins, "finish", finish_late)
    return gate


async def test_a_room_that_is_left_while_the_session_opens_sends_nothing_more(stream, gate):
    await publish(1, 2)
    one = await stream("rooms=chat-1&rewind=2")
    node = await get_node()
    (session,) = node.hub.sessions.values()
    posted = node.hub.on_frame.__self__
    assert (
        await post(one.session, {"op": Op.LEAVE, "seq": 7, "body": "chat-1"})
    ).status_code == 202
    await eventually(lambda: posted._waiting or not session.rooms)
    gate.set()
    values = [await one.event() for _ in range(3)]
    assert [value.get("offset") for value in values] == [1, 2, None]
    assert (values[2]["op"], values[2]["seq"]) == (Op.LEAVE_REPLY, 7)
    await publish(3)
    await to_key(b"4")
    assert (await one.event())["body"] == 4


async def test_an_acknowledgement_is_handled_while_the_session_opens(stream, gate):
    from offline.models import Pending

    await in_thread(push_now, Push(b"1", keys=("u1",)))
    one = await stream("ack=1&rooms=chat-1")
    number = (await one.event())["id"]
    for frame in ({"op": Op.HEARTBEAT, "seq": 7}, {"op": Op.ACK, "body": [number]}):
        assert (await post(one.session, frame)).status_code == 202
    await eventually(lambda: in_thread(lambda: not Pending.objects.exists()))
    gate.set()
    assert (await one.event())["seq"] == 7


async def test_a_failing_client_is_slowed_down(stream, imgo):
    one = await stream()
    imgo(AUTH_FAILURES=1, PARTITIONS=1)
    assert (await post(one.session, {"op": Op.HEARTBEAT}, "wrong")).status_code == 401
    assert (await get_node()).guard is not None


async def test_frames_are_handled_in_order_and_too_many_are_dropped(stream, imgo):
    one = await stream()
    imgo(MAX_FRAMES_PER_SECOND=10_000, PARTITIONS=1)
    node = await get_node()
    (session,) = node.hub.sessions.values()
    frames = PostedFrames(node)
    before = metrics.UPSTREAM_DROPPED._value.get()
    for number in range(WAITING_MAX + 5):
        frames.receive(session, Frame(1, Op.HEARTBEAT, number))
    assert metrics.UPSTREAM_DROPPED._value.get() - before == 5
    assert [(await one.event())["seq"] for _ in range(WAITING_MAX)] == list(range(WAITING_MAX))


async def test_a_push_arrives_while_frames_wait(stream):
    one = await stream()
    await in_thread(push_now, Push(b"1", keys=("u1",)))
    assert (await one.event())["body"] == 1
    assert await ask(one, Op.HEARTBEAT) == {}
