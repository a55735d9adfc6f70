"""The hub: membership and its races, delivery, sharing of bytes, orders to close."""

import asyncio
from unittest.mock import Mock

import pytest

from offline.models import Message
from push.bus.envelope import as_layer_message, close_envelope, message_envelope
from push.bus.group_names import ALL, key_group, node_group, room_group
from push.bus.layers import LAYER_ERRORS, InProcessChannelLayer, PubSubChannelLayer
from push.node import hub as hub_module
from push.node.hub import Hub
from push.session.outgoing import Kind
from push.wire import CloseCode
from tests import PATIENCE, eventually
from tests.push.sessions import frames, make_session

ROOM = room_group("r")


class GatedLayer(InProcessChannelLayer):
    """The in-process layer, whose joins and leaves can be stopped, made to fail, and counted."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls: list[tuple[str, str]] = []
        self.fails: list[Exception] = []

    async def group_add(self, group: str, channel: str) -> None:
        await self._pass("add", group)
        await super().group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._pass("discard", group)
        await super().group_discard(group, channel)

    async def receive(self, channel: str):
        if self.fails and self.fails[0].args == ("receive",):
            raise self.fails.pop()
        return await super().receive(channel)

    async def _pass(self, call: str, group: str) -> None:
        self.calls.append((call, group))
        await self.gate.wait()
        if self.fails and self.fails[0].args == (call,):
            raise self.fails.pop()

    def members(self, group: str) -> int:
        return len(self.groups.get(group, ()))


@pytest.fixture
def layer():
    return GatedLayer()


@pytest.fixture
async def hub(layer, monkeypatch):
    monkeypatch.setattr(hub_module, "RETRY_INTERVAL", 0.01)
    made = Hub(layer, "n1")
    await made.start()
    layer.calls.clear()
    yield made
    layer.gate.set()
    await made.stop()


@pytest.fixture
async def room(hub):
    """A session in a room."""
    session = make_session("s1", acks=True)
    await hub.add(session, [ROOM])
    return session


def envelope(group: str, id: int = 1, key: str = "", body: bytes = b"{}") -> dict:  # noqa: A002
    row = Message(pk=id, op=5, body=body, is_json=True)
    return as_layer_message(message_envelope(group, row, key))


def ids(session) -> list[int]:
    return [frame.id for frame in frames(session)]


async def send(layer, *messages: dict) -> None:
    for message in messages:
        await layer.group_send(message["group"], message)


# Membership


async def test_a_hub_is_in_the_groups_that_every_node_is_in(hub, layer):
    assert layer.members(ALL) == layer.members(node_group("n1")) == 1


async def test_the_first_to_join_joins_the_layer_and_no_other_does(hub, layer):
    await hub.add(make_session("s1"), [ROOM])
    await hub.add(make_session("s2"), [ROOM, key_group("u1")])
    assert layer.calls == [("add", ROOM), ("add", key_group("u1"))]


async def test_those_who_join_together_join_the_layer_once_and_all_wait_for_it(hub, layer):
    layer.gate.clear()
    joins = [asyncio.create_task(hub.add(make_session(f"s{n}"), [ROOM])) for n in range(3)]
    await eventually(lambda: layer.calls)
    await asyncio.wait(joins, timeout=0.02)
    assert not any(join.done() for join in joins)
    layer.gate.set()
    await asyncio.gather(*joins)
    assert layer.calls == [("add", ROOM)]


@pytest.mark.parametrize("order", [["k.own", ROOM], [ROOM, "k.own"]])
async def test_who_joins_with_two_batches_waits_for_both_whichever_is_over_first(hub, layer, order):
    layer.gate.clear()
    first = asyncio.create_task(hub.add(make_session("s1"), [ROOM]))
    await eventually(lambda: layer.calls)  # the room is on its way; the next batch is a new one
    second = asyncio.create_task(hub.add(make_session("s2"), order))
    await asyncio.sleep(0)
    layer.gate.set()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(first, second)
    assert layer.members(ROOM) == layer.members("k.own") == 1


async def test_one_who_gives_up_joining_does_not_hurt_the_others(hub, layer):
    layer.gate.clear()
    gone, stays = (asyncio.create_task(hub.add(make_session(n), [ROOM])) for n in ("s1", "s2"))
    await eventually(lambda: layer.calls)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    layer.gate.set()
    await stays
    assert layer.members(ROOM) == 1


async def test_a_join_that_failed_is_tried_again_by_the_next(hub, layer):
    session = make_session("s1")
    layer.fails.append(OSError("add"))
    with pytest.raises(OSError, match="add"):
        await hub.add(session, [ROOM])
    hub.remove(session, [ROOM])
    await hub.add(make_session("s2"), [ROOM])
    assert layer.members(ROOM) == 1
    assert hub.groups[ROOM] == {hub.sessions["s2"]}


async def test_the_layer_is_left_a_while_after_the_last_has_gone(hub, layer, room):
    other = make_session("s2")
    await hub.add(other, [ROOM])
    hub.leave(room, ROOM)
    await hub.layer_groups.leave_empty(0)
    assert layer.members(ROOM) == 1
    hub.remove(other, [ROOM])
    await hub.layer_groups.leave_empty(3600)
    assert layer.members(ROOM) == 1
    await hub.layer_groups.leave_empty(0)
    assert layer.members(ROOM) == 0
    await hub.layer_groups.leave_empty(0)
    assert [call for call, _ in layer.calls] == ["add", "discard"]


async def test_who_comes_back_in_time_finds_the_layer_joined(hub, layer, room):
    hub.leave(room, ROOM)
    await hub.join(room, ROOM)
    await hub.layer_groups.leave_empty(0)
    assert layer.members(ROOM) == 1
    assert layer.calls == [("add", ROOM)]


async def test_who_comes_back_while_the_layer_is_being_left_joins_it_again(hub, layer, room):
    hub.leave(room, ROOM)
    layer.gate.clear()
    leaving = asyncio.create_task(hub.layer_groups.leave_empty(0))
    await eventually(lambda: ("discard", ROOM) in layer.calls)
    joining = asyncio.create_task(hub.join(room, ROOM))
    await asyncio.wait([joining], timeout=0.02)
    assert not joining.done()
    layer.gate.set()
    await asyncio.gather(leaving, joining)
    assert layer.members(ROOM) == 1
    await send(layer, envelope(ROOM))
    await eventually(lambda: ids(room) == [1])


async def test_a_leave_that_failed_does_not_keep_others_from_joining(hub, layer, room):
    hub.leave(room, ROOM)
    layer.fails.append(OSError("discard"))
    with pytest.raises(OSError, match="discard"):
        await hub.layer_groups.leave_empty(0)
    await hub.join(room, ROOM)
    assert layer.calls[-1] == ("add", ROOM)
    assert layer.members(ROOM) == 1


async def test_in_a_storm_of_joins_and_leaves_the_layer_follows_at_last(hub, layer):
    sessions = [make_session(f"s{n}") for n in range(5)]
    for session in sessions:
        await hub.add(session, [])

    async def come_and_go(session, stays: bool) -> None:
        for _ in range(20):
            await hub.join(session, ROOM)
            await asyncio.sleep(0)
            hub.leave(session, ROOM)
            await asyncio.sleep(0)
        if stays:
            await hub.join(session, ROOM)

    async def sweep() -> None:
        while True:
            await hub.layer_groups.leave_empty(0)
            await asyncio.sleep(0)

    for stays in (True, False):
        sweeper = asyncio.create_task(sweep())
        await asyncio.gather(*(come_and_go(session, stays) for session in sessions))
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)
        await hub.layer_groups.leave_empty(0)
        assert layer.members(ROOM) == stays
        assert len(hub.groups.get(ROOM, ())) == 5 * stays


async def test_groups_that_every_node_is_in_are_never_left(hub, layer, room):
    hub.remove(room, [ROOM])
    await hub.layer_groups.leave_empty(0)
    assert layer.members(ALL) == 1
    session = make_session("s2", acks=True)
    await hub.add(session, [])
    await send(layer, envelope(ALL))
    await eventually(lambda: ids(session) == [1])


async def test_nothing_is_left_of_a_removed_session(hub, room):
    hub.remove(room, [ROOM])
    hub.remove(room, [ROOM])
    assert hub.sessions == {}
    assert not any(hub.groups.values())


async def test_leaving_what_it_is_not_in_is_no_mistake(hub, room):
    hub.leave(room, room_group("elsewhere"))
    assert hub.groups[ROOM] == {room}


# Messages, through either layer


@pytest.fixture(params=["in process", pytest.param("redis", marks=pytest.mark.services)])
def any_layer(request, layer, settings):
    if request.param == "in process":
        return layer
    return PubSubChannelLayer(hosts=[settings.REDIS_URL], prefix="test-hub")


@pytest.fixture
async def two_hubs(any_layer):
    """Two nodes, each with a session of u1 in the room, and one of u2 that is not."""
    hubs, sessions = [], []
    for node in ("n1", "n2"):
        hub = Hub(any_layer, node)
        await hub.start()
        inside = make_session(f"{node}-1", acks=True)
        outside = make_session(f"{node}-2", acks=True, key="u2")
        await hub.add(inside, [key_group("u1"), ROOM])
        await hub.add(outside, [key_group("u2")])
        hubs.append(hub)
        sessions += [inside, outside]
    yield sessions
    for hub in hubs:
        await hub.stop()
    await any_layer.flush()


async def test_a_message_reaches_its_group_on_every_node_in_order(two_hubs, any_layer):
    await send(
        any_layer,
        envelope(key_group("u1"), 1, "u1"),
        envelope(ROOM, 2),
        envelope(key_group("u2"), 3, "u2"),
        envelope(room_group("elsewhere"), 4),
        envelope(ALL, 5),
    )
    await eventually(lambda: all(5 in ids(session) for session in two_hubs))
    assert [ids(session) for session in two_hubs] == [[1, 2, 5], [3, 5]] * 2


async def test_any_body_crosses_the_layer_as_it_is(two_hubs, any_layer):
    body = bytes(range(256))
    await send(any_layer, envelope(ALL, 1, body=body))
    await eventually(lambda: all(map(ids, two_hubs)))
    assert all(frames(session)[0].body == body for session in two_hubs)


async def test_an_order_to_close_reaches_the_node_that_it_is_for(two_hubs, any_layer):
    order = close_envelope(node_group("n2"), ["n2-1", "n1-1", "nobody"], CloseCode.REPLACED)
    await send(any_layer, as_layer_message(order), envelope(ALL, 9))
    await eventually(lambda: all(map(ids, two_hubs)))
    assert [session.is_closed for session in two_hubs] == [False, False, True, False]
    assert two_hubs[2].link.closed == [(4503, CloseCode.REPLACED.reason)]


async def test_an_order_to_close_a_key_closes_all_its_sessions(two_hubs, any_layer):
    order = close_envelope(key_group("u2"), [], CloseCode.KICKED, "out")
    await send(any_layer, as_layer_message(order), envelope(ALL, 9))
    await eventually(lambda: all(map(ids, two_hubs)))
    assert [session.link.closed for session in two_hubs] == [[], [(4504, "out")]] * 2


async def test_a_stopped_hub_delivers_nothing(hub, layer, room):
    await hub.stop()
    await hub.stop()
    await send(layer, envelope(ROOM))
    assert ids(room) == []


# Messages, inside


async def test_the_bytes_are_encoded_once_for_each_kind(hub):
    sessions = [
        make_session(f"{kind}{acks}{n}", kind=kind, acks=acks)
        for kind in Kind
        for acks in (True, False)
        for n in range(3)
    ]
    for session in sessions:
        await hub.add(session, [ROOM])
    hub.handle(envelope(ROOM))
    written = [session.link.written[0] for session in sessions]
    # Events are the same with and without acknowledgements: they always have the id.
    assert len({id(data) for data in written}) == len(Kind) * 2 - 1


async def test_what_settles_a_pending_row_is_acknowledged(hub):
    got = []
    session = make_session("s1", acknowledged=got)
    await hub.add(session, [key_group("u1")])
    hub.handle(envelope(key_group("u1"), 7, "u1"))
    hub.handle(envelope(key_group("u1"), 8))
    assert got == [(7, "u1")]


@pytest.mark.parametrize("group", [ROOM, ALL, key_group("u1")])
async def test_a_second_copy_of_what_is_not_stored_is_dropped(hub, group):
    session = make_session("s1", acks=True)
    await hub.add(session, [key_group("u1"), ROOM])
    for number in (1, 1, 2, 1):
        hub.handle(envelope(group, number))
    await eventually(lambda: ids(session)[-1:] == [2])
    assert ids(session) == [1, 2]


async def test_what_has_no_id_is_never_a_second_copy(hub, room):
    for body in (b"1", b"2", b"1"):
        hub.handle(envelope(ROOM, 0, body=body))
    await eventually(lambda: len(frames(room)) == 3)
    assert [frame.body for frame in frames(room)] == [b"1", b"2", b"1"]


async def test_what_is_not_stored_reaches_each_of_its_keys(hub):
    sessions = [make_session(f"s{n}", acks=True, key=f"u{n}") for n in range(3)]
    for session in sessions:
        await hub.add(session, [key_group(session.key)])
        hub.handle(envelope(key_group(session.key), 1))
    assert [ids(session) for session in sessions] == [[1]] * 3


async def test_a_message_for_nobody_here_leaves_nothing(hub):
    hub.handle(envelope(room_group("elsewhere")))
    assert hub.coalescers == {}


async def test_others_get_a_turn_while_many_messages_are_handled(hub, layer, room):
    for n in range(1, 3 * hub_module.YIELD_AFTER):
        layer.channels[hub.layer_groups.channel].put_nowait(
            (float("inf"), envelope(key_group("u2"), n))
        )
    layer.channels[hub.layer_groups.channel].put_nowait((float("inf"), envelope(ROOM, 7)))
    turns = 0
    while not room.link.written:
        turns += 1
        await asyncio.sleep(0)
    assert 2 <= turns < 3 * hub_module.YIELD_AFTER


async def test_drops_are_counted_and_told_now_and_then(hub, caplog):
    for _ in range(2 * hub_module.DROP_LOG):
        hub.count_drop("a reason")
    assert hub.drops == {"a reason": 2 * hub_module.DROP_LOG}
    assert len(caplog.records) == 2
    assert "a reason" in caplog.text


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "imgo.message", "group": ROOM},
        {"type": "imgo.message"},
        {"type": "imgo.unknown", "group": ROOM},
        {"type": "imgo.close", "group": ROOM, "sessions": [], "code": 1, "reason": ""},
        {"no": "type"},
        {**envelope(ROOM), "body": "text"},
        {**envelope(ROOM), "op": "five"},
    ],
    ids=range(7),
)
async def test_a_bad_message_does_not_keep_the_next_from_its_session(hub, layer, room, bad, caplog):
    await layer.group_send(ROOM, bad)
    await send(layer, envelope(ROOM, 7))
    await eventually(lambda: ids(room)[-1:] == [7])
    assert hub.drops == {"malformed": 1}
    assert "dropped a malformed message" in caplog.text
    assert "Traceback" not in caplog.text
    assert not room.is_closed


async def test_bad_messages_are_logged_once_and_do_not_slow_the_reader(
    hub, layer, room, caplog, monkeypatch
):
    monkeypatch.setattr(hub_module, "RETRY_INTERVAL", 3600.0)
    for _ in range(50):
        await layer.group_send(ROOM, {"no": "type"})
    await send(layer, envelope(ROOM, 7))
    await eventually(lambda: ids(room) == [7])
    assert hub.drops["malformed"] == 50
    assert caplog.text.count("dropped a malformed message") == 1


async def test_what_fails_in_the_hub_is_logged_and_the_next_is_handled(
    hub, layer, room, caplog, monkeypatch
):
    monkeypatch.setattr(hub, "live", Mock(add=Mock(side_effect=[RuntimeError("a bug"), True])))
    await send(layer, envelope(ROOM, 1))
    await send(layer, envelope(ROOM, 2))
    await eventually(lambda: ids(room) == [2])
    assert "could not be handled" in caplog.text


async def test_a_layer_that_fails_is_read_again(hub, layer, room, caplog):
    layer.fails.append(OSError("receive"))
    await send(layer, envelope(ROOM, 1))  # wakes the reader that is waiting already
    await send(layer, envelope(ROOM, 2))
    await eventually(lambda: ids(room) == [1, 2])
    assert "cannot be read (OSError)" in caplog.text


# Joining Redis together


@pytest.fixture
async def pubsub(settings, redis_client):
    """The layer of production."""
    layer = PubSubChannelLayer(hosts=[settings.REDIS_URL], prefix="test-join")
    yield layer
    await layer.flush()


def subscribed(client, prefix: str = "test-join__group__") -> set[str]:
    return {name.removeprefix(prefix) for name in client.pubsub_channels(f"{prefix}*")}


def commands(client, name: str) -> int:
    """How many commands of this name Redis has carried out."""
    return client.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0)


async def test_the_groups_of_a_storm_are_a_few_commands(pubsub, redis_client):
    hub = Hub(pubsub, "n1")
    await hub.start()
    before = commands(redis_client, "subscribe")
    storm = [make_session(f"s{n}") for n in range(200)]
    await asyncio.gather(*(hub.add(one, [key_group(one.id), ROOM]) for one in storm))
    assert commands(redis_client, "subscribe") - before <= 3
    assert {key_group(one.id) for one in storm} < subscribed(redis_client)
    before = commands(redis_client, "unsubscribe")
    for one in storm:
        hub.remove(one, [key_group(one.id), ROOM])
    await hub.layer_groups.leave_empty(0)
    await eventually(lambda: subscribed(redis_client) == {ALL, node_group("n1")})
    assert commands(redis_client, "unsubscribe") - before == 1
    await hub.stop()


async def test_who_has_joined_has_been_confirmed_by_redis(pubsub, redis_client):
    channel = await pubsub.new_channel()
    await pubsub.groups_add([f"g{n}" for n in range(50)], channel)
    # Not a moment later: what is published from now on must come in.
    assert subscribed(redis_client) == {f"g{n}" for n in range(50)}


async def test_a_join_fails_while_redis_does_not_answer(settings, closed_port):
    layer = PubSubChannelLayer(hosts=[f"redis://127.0.0.1:{closed_port}/0"], prefix="test-join")
    with pytest.raises(LAYER_ERRORS):
        await layer.new_channel()


async def test_a_connection_that_was_cut_is_made_again_with_all_groups(
    pubsub, redis_client, monkeypatch
):
    monkeypatch.setattr("push.bus.redis_listener.RETRY_INTERVAL", 0.01)
    channel = await pubsub.new_channel()
    await pubsub.groups_add(["g1", "g2"], channel)
    for connection in redis_client.client_list(_type="pubsub"):
        redis_client.client_kill(connection["addr"])
    await eventually(lambda: subscribed(redis_client) == {"g1", "g2"})
    await pubsub.groups_add(["g3"], channel)
    await pubsub.group_send("g3", {"type": "x"})
    assert await asyncio.wait_for(pubsub.receive(channel), 10) == {"type": "x"}


async def test_a_group_that_is_being_joined_is_not_left(hub, layer):
    layer.gate.clear()
    session = make_session("s1")
    joining = asyncio.create_task(hub.add(session, [ROOM]))
    await eventually(lambda: layer.calls)
    hub.remove(session, [ROOM])
    await hub.layer_groups.leave_empty(0)
    layer.gate.set()
    await joining
    await hub.layer_groups.leave_empty(0)
    assert layer.calls == [("add", ROOM), ("discard", ROOM)]


# Messages that wait for room


@pytest.fixture
def tiny(imgo, monkeypatch):
    """Two messages are all that may wait for one group; call it to change settings."""
    monkeypatch.setattr("push.node.coalescer.WAITING_MAX", 2)
    return imgo


@pytest.fixture
async def quiet_room(hub):
    session = make_session("s2", acks=True)
    await hub.add(session, ["r.quiet"])
    return session


async def test_a_busy_group_that_ensures_stops_no_other(hub, layer, room, quiet_room, tiny):
    tiny(BATCH_WINDOW=3600.0)  # until the first batch is full, nothing is written
    for n in range(1, 6):
        await send(layer, {**envelope(ROOM, n), "ensure": True})
    await send(layer, envelope("r.quiet", 9))
    await eventually(lambda: ids(quiet_room) == [9])
    assert ids(room) == [1]
    assert hub.drops == {}


async def test_what_waits_for_room_goes_out_in_order(hub, layer, room, tiny):
    tiny(BATCH_WINDOW=0.01)
    for n in range(1, 9):
        await send(layer, {**envelope(ROOM, n), "ensure": n <= 4})
    await eventually(lambda: len(ids(room)) == 8)
    assert ids(room) == list(range(1, 9))
    assert (hub.drops, hub.ensured._queues, hub.ensured._count) == ({}, {}, 0)


async def test_more_than_may_wait_for_room_is_dropped_and_counted(
    hub, layer, room, tiny, monkeypatch
):
    tiny(BATCH_WINDOW=3600.0)
    monkeypatch.setattr("push.node.ensured_delivery.ENSURED_MAX", 2)
    for n in range(1, 8):
        await send(layer, {**envelope(ROOM, n), "ensure": True})
    await eventually(lambda: hub.drops == {"busy_group": 2})
