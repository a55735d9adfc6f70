"""A project beside a real imgo node: what it commits arrives once and in order, whatever fails."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Iterator

import pytest

from imgo_client import Publisher
from tests import NO_TLS, eventually
from tests.e2e.harness import Embedded, System, logs
from tests.e2e.world import World, new_key, new_room

from .shop import Shop

SECRET = "a secret that both sides know, of enough bytes"
# The lease is short, so that a test can wait for its end.
QUICK = {"HTTP_TIMEOUT": 3.0, "LEASE": 13.0, "BACKOFF": (0.05, 0.5), "POLL": 0.05}
WAIT = 120.0  # seconds until everything must have arrived

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(scope="module")
def system(make_embedded: Callable[..., Embedded]) -> Iterator[Embedded]:
    """One node, which nobody stops."""
    with make_embedded(IMGO_JWT_SECRET=SECRET) as found:
        yield found
    assert logs.complaints() == []


@pytest.fixture
def shop_of(make_shop: Callable[..., Shop]) -> Callable[..., Shop]:
    """Makes a project that pushes to an installation."""

    def make(system: System, **imgo: object) -> Shop:
        options = {"URL": system.api_url, "API_KEY": system.api_key, "RELAY": "none", **QUICK}
        shop = make_shop(**{**options, **imgo})
        shop.migrate()
        return shop

    return make


async def received(world: World, key: str, count: int, **auth: object) -> list[object]:
    """Return the next messages of a key; there must be no more."""
    client = await world.session(key, **auth)
    bodies = [json.loads(body) for body in await client.receive_bodies(count, WAIT)]
    await world.api.push({"key": key}, b'"end"')
    assert await client.receive_bodies(1) == [b'"end"']
    return bodies


def count_waiting(shop: Shop, within: float = 0.0) -> int:
    """Return how many rows the outbox has that are not parked, at the latest after `within` s."""
    return int(
        shop.run(f"""
import time
from imgo_client.django.models import Outbox
end = time.monotonic() + {within}
while (count := Outbox.objects.waiting().count()) and time.monotonic() < end:
    time.sleep(0.05)
print(count)
""")
    )


async def until_empty(shop: Shop) -> None:
    """Wait until the outbox has no row that is not parked."""
    assert await asyncio.to_thread(count_waiting, shop, WAIT) == 0


def push_numbers(shop: Shop, keys: list[str], count: int) -> None:
    """Push so many numbers to each key, ten in a transaction."""
    shop.run(f"""
from django.db import transaction
for start in range(0, {count}, 10):
    with transaction.atomic():
        for number in range(start, start + 10):
            for key in {keys}:
                push_to_key(key, number)
""")


@pytest.mark.long(but=["sqlite"])
async def test_commit_is_sent_and_rollback_is_not(
    system: Embedded, enter: Enter, shop_of: Callable[..., Shop]
) -> None:
    """The process ends right after its commits: its relay's thread still sends them."""
    world, shop = await enter(system), shop_of(system, RELAY="thread", EXIT_WAIT=60.0)
    key, room = new_key(), new_room()
    member = await world.session(new_key(), rooms=[room])
    await asyncio.to_thread(
        shop.run,
        f"""
from django.db import transaction
with transaction.atomic():
    push_to_key({key!r}, 1, ttl=3600)
try:
    with transaction.atomic():
        push_to_key({key!r}, 2)
        raise ZeroDivisionError
except ZeroDivisionError:
    push_to_keys([{key!r}, "other"], 3)
push_to_room({room!r}, "room")
""",
    )
    assert count_waiting(shop) == 0
    assert await received(world, key, 2) == [1, 3]
    assert await member.receive_bodies(1) == [b'"room"']


# The lease of a killed relay must end before another one sends the rest.
@pytest.mark.parametrize(
    ("count", "options"),
    [
        pytest.param(20, {"HTTP_TIMEOUT": 1.0, "LEASE": 4.5}, id="some"),
        pytest.param(100, {}, id="many"),
    ],
)
@pytest.mark.long
async def test_killed_relays_and_two_at_once_send_everything_once(
    system: Embedded,
    enter: Enter,
    shop_of: Callable[..., Shop],
    count: int,
    options: dict[str, object],
) -> None:
    """Relays are killed while rows are sent but not deleted; then two others share the rest.

    `count`: pushes to each key.
    """
    world, shop = await enter(system), shop_of(system, BATCH=5, **options)
    keys = [new_key() for _ in range(4)]
    await asyncio.to_thread(push_numbers, shop, keys, count)
    victim = shop.relay("victim")
    for number in range(2):
        await victim.start_beside()
        await eventually(lambda: pending(system, keys) > 20 * (number + 1), WAIT)  # noqa: B023
        victim.kill()
    assert 0 < pending(system, keys) <= 4 * count
    relays = [shop.relay(f"relay{number}") for number in range(2)]
    for relay in relays:
        relay.launch()
    await until_empty(shop)
    for relay in relays:
        relay.stop()
    for key in keys:
        assert await received(world, key, count) == list(range(count))


def pending(system: System, keys: list[str]) -> int:
    """Return how many messages the node has for these keys."""
    with Publisher(system.api_url, system.api_key, trust_env=False, verify=NO_TLS) as publisher:
        return sum(publisher.key(key)["pending"] for key in keys)


@pytest.mark.long
async def test_outage_of_the_server_delays_and_loses_nothing(
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    enter: Enter,
    shop_of: Callable[..., Shop],
) -> None:
    system = own_system(make_embedded())
    world, shop = await enter(system), shop_of(system)
    keys = [new_key() for _ in range(4)]
    relay = shop.relay()
    await relay.start_beside()
    await asyncio.to_thread(push_numbers, shop, keys, 10)
    await until_empty(shop)
    system.nodes[0].kill()
    await asyncio.to_thread(push_numbers, shop, keys, 20)
    status = await asyncio.to_thread(shop.manage, "imgo_status")
    assert status.returncode == 1
    assert "server: " in status.stdout
    assert "80 waiting" in status.stdout
    await system.nodes[0].start_beside()
    await until_empty(shop)
    relay.stop()
    for key in keys:
        assert await received(world, key, 30) == [*range(10), *range(20)]


@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
@pytest.mark.long
async def test_wrong_api_key_parks_nothing_and_recovers(
    system: Embedded, enter: Enter, shop_of: Callable[..., Shop]
) -> None:
    world, shop = await enter(system), shop_of(system)
    key = new_key()
    right, shop.imgo["API_KEY"] = shop.imgo["API_KEY"], "wrong"
    await asyncio.to_thread(push_numbers, shop, [key], 10)
    relay = shop.relay("refused")
    await relay.start_beside()
    await eventually(lambda: "401" in relay.log.read_text(), WAIT)
    relay.stop()
    status = await asyncio.to_thread(shop.manage, "imgo_status")
    assert status.returncode == 1
    assert "API key: refused" in status.stdout
    assert "10 waiting" in status.stdout
    assert "parked (default): none" in status.stdout
    shop.imgo["API_KEY"] = right
    relay = shop.relay("accepted")
    await relay.start_beside()
    await until_empty(shop)
    relay.stop()
    assert await received(world, key, 10) == list(range(10))


@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
@pytest.mark.long
async def test_refused_push_is_parked_and_sent_again_on_request(
    system: Embedded, enter: Enter, shop_of: Callable[..., Shop]
) -> None:
    world, shop = await enter(system), shop_of(system)
    key = new_key()
    program = f"push_to_key({key!r}, 1, ttl=10**9); push_to_key({key!r}, 2)"
    await asyncio.to_thread(shop.run, program)
    once = await asyncio.to_thread(shop.manage, "imgo_relay", "--once")
    assert once.returncode == 0, once.stderr
    status = await asyncio.to_thread(shop.manage, "imgo_status")
    assert status.returncode == 1
    assert "parked (default): 1" in status.stdout
    await asyncio.to_thread(
        shop.run,
        "from imgo_client.django.models import Outbox\n"
        "Outbox.objects.update(options={})\n"
        "assert Outbox.objects.all().send_again() == 1",
    )
    await asyncio.to_thread(shop.manage, "imgo_relay", "--once")
    assert await received(world, key, 2) == [2, 1]


@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
async def test_status_is_good_or_says_which_secret_is_wrong(
    system: Embedded, shop_of: Callable[..., Shop]
) -> None:
    shop = shop_of(system, TOKEN_SECRET=SECRET)
    status = await asyncio.to_thread(shop.manage, "imgo_status")
    assert status.returncode == 0, status
    assert "API key: accepted" in status.stdout
    assert "token secret: accepted" in status.stdout
    assert "outbox (default): empty" in status.stdout
    shop.imgo["TOKEN_SECRET"] = "another secret, which the server does not know"
    status = await asyncio.to_thread(shop.manage, "imgo_status")
    assert status.returncode == 1
    assert "token secret: refused" in status.stdout
    assert status.stderr.endswith("CommandError: 1 problem.\n")


@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
async def test_forked_process_has_a_relay_of_its_own(
    system: Embedded, enter: Enter, shop_of: Callable[..., Shop]
) -> None:
    """The parent's thread runs when it forks, as in a server that loads the project first."""
    world, shop = await enter(system), shop_of(system, RELAY="thread", EXIT_WAIT=60.0)
    key = new_key()
    out = await asyncio.to_thread(
        shop.run,
        f"""
import os, sys, threading
from django.db import connections

def names():
    return [one.name for one in threading.enumerate() if one.name == "imgo-relay"]

push_to_key({key!r}, 1)
print(names(), flush=True)
connections.close_all()
if (child := os.fork()) == 0:
    print(names())
    push_to_key({key!r}, 2)
    print(names())
    sys.exit()
os.waitpid(child, 0)
print(names())
""",
    )
    assert out.split("\n")[:4] == ["['imgo-relay']", "[]", "['imgo-relay']", "['imgo-relay']"]
    assert sorted(await received(world, key, 2)) == [1, 2]


@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
@pytest.mark.long
async def test_fork_during_work_of_the_relay_copies_no_held_lock(
    system: Embedded, shop_of: Callable[..., Shop]
) -> None:
    """SQLite has locks of the process. A child whose parent's relay held one would wait forever."""
    shop = shop_of(system, RELAY="thread")
    out = await asyncio.to_thread(
        shop.run,
        """
import os, signal
from django.db import connections

for number in range(60):
    push_to_key("parent", number)
    connections.close_all()
    if (child := os.fork()) == 0:
        signal.alarm(30)
        push_to_key("child", number)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, number
print("all")
""",
    )
    assert out == "all\n"


@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_relay_process_ends_in_order(make_shop: Callable[..., Shop], number: int) -> None:
    shop = make_shop(**QUICK)
    shop.migrate()
    relay = shop.relay()
    relay.start()
    relay.signal(number)
    relay.wait_until_ended()
    assert "The relay has ended." in relay.log.read_text()
