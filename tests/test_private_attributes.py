"""Other libraries' private attributes, as docs/reference/private-attributes.md lists them.

A test for each fails when a new version of the library lacks it, or does something else with it.
The last tests compare the page with the source and with the pinned versions.
"""

import ast
import asyncio
import importlib
import re
import threading
from argparse import ArgumentParser, HelpFormatter
from collections.abc import Iterator
from enum import IntEnum
from io import BytesIO
from pathlib import Path
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import psycopg
import pytest
from celery import Celery
from channels.layers import InMemoryChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer, RedisPubSubLoopLayer

# Before anything else of Twisted: it installs the asyncio reactor.
from daphne.server import Server as _Server  # noqa: F401

# isort: split
from django.db import connection
from django.db.backends.postgresql.base import DatabaseWrapper
from django.http import HttpRequest
from django.test import RequestFactory
from prometheus_client import CollectorRegistry, Counter
from psycopg import errors
from psycopg_pool import ConnectionPool
from psycopg_pool.base import AttemptWithBackoff
from rest_framework.request import Request as ApiRequest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.testing import StringTransport
from twisted.web.http import HTTPChannel, Request

from tests import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reference" / "private-attributes.md").read_text()
PACKAGES = ("imgo_site", "accounts", "offline", "push")
# Of our own objects, used by another of our own functions.
OURS = {"_drop_pool"}
NOWHERE = "redis://127.0.0.1:1"  # nothing connects to it

GET = b"GET /here HTTP/1.1\r\nHost: imgo\r\n"


# Twisted


class Quiet(Request):
    """A request that is never answered."""

    def process(self) -> None:
        pass


def connected(kind: type[HTTPChannel] = HTTPChannel) -> Any:
    channel: Any = kind()
    channel.requestFactory = Quiet
    channel.makeConnection(StringTransport())
    return channel


def test_twisted_channel_keeps_bytes_behind_a_request_in_data_buffer():
    channel = connected()
    channel.dataReceived(GET + b"\r\nbehind")
    channel.dataReceived(b", and more")
    assert b"".join(channel._dataBuffer) == b"behind, and more"


def test_twisted_transport_keeps_unsent_bytes_in_two_buffers():
    class OneByte(FileDescriptor):
        def writeSomeData(self, data: Any) -> int:  # noqa: N802
            return 1

    transport: Any = OneByte(SimpleNamespace(addWriter=lambda _: None))
    transport.connected = True
    transport.write(b"abc")
    transport.doWrite()
    transport.write(b"de")
    assert transport._tempDataBuffer == [b"de"]
    assert transport.dataBuffer[transport.offset :] == b"bc"


def test_twisted_channel_keeps_the_first_line_until_the_headers_end():
    class Elsewhere(HTTPChannel):
        def allHeadersReceived(self) -> None:  # noqa: N802
            self.seen = (self._command, self._path, self._version)
            self._path = b"/elsewhere"
            super().allHeadersReceived()

    channel = connected(Elsewhere)
    channel.dataReceived(GET + b"\r\n")
    assert channel.seen == (b"GET", b"/here", b"HTTP/1.1")
    assert channel.requests[0].uri == b"/elsewhere"


def test_twisted_channel_counts_the_headers_of_a_request():
    class Counted(HTTPChannel):
        def headerReceived(self, line: bytes) -> bool:  # noqa: N802
            self.seen = [*getattr(self, "seen", []), self._receivedHeaderCount]
            return super().headerReceived(line)

    channel = connected(Counted)
    channel.dataReceived(GET + b"Accept: */*\r\n")
    assert channel._receivedHeaderSize == len((GET + b"Accept: */*\r\n").replace(b"\r\n", b""))
    channel.dataReceived(b"\r\n")
    assert channel.seen == [0, 1]
    assert (channel._receivedHeaderCount, channel._receivedHeaderSize) == (0, 0)


def test_twisted_channel_keeps_an_unfinished_line_in_buffer():
    channel = connected()
    assert not channel._buffer
    channel.dataReceived(b"GET /he")
    assert channel._buffer == b"GET /he"


def test_twisted_channel_answers_bad_requests_in_one_method():
    class Refusing(HTTPChannel):
        refused = 0

        def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
            self.refused += 1

    for bad in (b"no request\r\n", GET + b"Content-Length: some\r\n\r\n"):
        channel = connected(Refusing)
        channel.dataReceived(bad)
        assert channel.refused >= 1
        assert channel.transport.value() == b""


# Django and Django REST framework


@pytest.fixture
def wrapper() -> Iterator[Any]:
    """Django's own wrapper of the tests' Postgres, with a pool that is not open."""
    options = {**connection.settings_dict["OPTIONS"], "pool": True}
    found: Any = DatabaseWrapper({**connection.settings_dict, "OPTIONS": options}, "private")
    yield found
    found._connection_pools.pop("private", None)


@pytest.mark.services
def test_django_keeps_pools_by_alias_for_all_wrappers(wrapper):
    assert wrapper.pool is wrapper._connection_pools["private"]
    assert DatabaseWrapper._connection_pools["private"] is wrapper.pool
    wrapper.close_pool()
    assert "private" not in wrapper._connection_pools


@pytest.mark.services
def test_django_configures_a_connection_of_a_pool(wrapper):
    with psycopg.connect(**wrapper.get_connection_params()) as raw:
        raw.execute("SET TIMEZONE = 'Asia/Tokyo'")
        wrapper._configure_connection(raw)
        assert raw.execute("SHOW TIMEZONE").fetchone() == (wrapper.timezone_name,)


def test_django_request_reads_its_body_from_stream():
    request: Any = RequestFactory().post("/", b"sent", content_type="text/plain")
    request._stream = BytesIO(b"of unknown length")
    assert request.body == b"of unknown length"


def test_rest_framework_request_has_the_request_of_django():
    plain = HttpRequest()
    assert ApiRequest(plain)._request is plain


def test_rest_framework_asks_one_method_for_a_caller_without_credentials():
    class Nobody(ApiRequest):
        def _not_authenticated(self) -> None:
            self._authenticator = None
            self.user = self.auth = None  # type: ignore[assignment]

    request = Nobody(HttpRequest())
    assert (request.user, request.auth, request.successful_authenticator) == (None, None, None)
    assert ApiRequest(HttpRequest()).user is not None


# psycopg


@pytest.mark.services
def test_psycopg_wait_raises_wait_timeout():
    class Short(psycopg.Connection[Any]):
        limit: float | None = None

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            return super().wait(gen, interval, self.limit)

    with Short.connect(**connection.get_connection_params()) as raw:
        raw.limit = 0.05
        with pytest.raises(errors._WaitTimeout):
            raw.execute("SELECT pg_sleep(60)")
        raw.cancel()  # the server would sleep on, and the test database could not be removed
        raw.close()


@pytest.mark.services
def test_psycopg_pool_names_itself_in_its_connections():
    with (
        ConnectionPool(min_size=1, open=True, kwargs=connection.get_connection_params()) as pool,
        pool.connection() as raw,
    ):
        assert raw._pool is pool


def test_psycopg_pool_connects_with_the_attempt_that_it_is_given():
    class RequestContext(AttemptWithBackoff):
        def update_delay(self, now: float) -> None:
            super().update_delay(now)
            self.delay = 3600.0
            failed.set()

    class Pool(ConnectionPool[Any]):
        def _add_connection(
            self, attempt: AttemptWithBackoff | None, growing: bool = False
        ) -> None:
            assert attempt is None
            super()._add_connection(RequestContext(timeout=self.reconnect_timeout), growing)

    failed = threading.Event()
    with Pool("host=127.0.0.1 port=1 connect_timeout=2", min_size=1, open=True):
        assert failed.wait(PATIENCE)


# Channels


async def test_channels_layer_in_memory_forgets_in_one_method():
    class Keeping(InMemoryChannelLayer):
        def _clean_expired(self) -> None:
            pass

    for kind, is_kept in ((InMemoryChannelLayer, False), (Keeping, True)):
        layer = kind(group_expiry=-1)
        await layer.group_add("room", "hub")
        await layer.group_send("room", {"type": "message"})
        assert ("hub" in layer.groups.get("room", ())) is is_kept


async def test_channels_redis_makes_a_layer_for_each_loop():
    layer: Any = RedisPubSubChannelLayer(hosts=[NOWHERE], prefix="test")
    assert (layer._args, layer._kwargs) == ((), {"hosts": [NOWHERE], "prefix": "test"})
    stock, loop, sent = layer._get_layer(), asyncio.get_running_loop(), []

    async def group_send(*message: object) -> None:
        sent.append(message)

    assert layer._layers == {loop: stock}
    layer._layers[loop] = SimpleNamespace(group_send=group_send)
    await layer.group_send("room", {})
    assert sent == [("room", {})]
    layer._layers[loop] = stock


async def test_channels_redis_publishes_to_the_shard_of_the_groups_name():
    class Shard:
        def __init__(self) -> None:
            self.published: list[str] = []

        async def publish(self, channel: str, message: bytes) -> None:
            self.published.append(channel)

    layer: Any = RedisPubSubChannelLayer(hosts=[NOWHERE])
    own: Any = RedisPubSubLoopLayer(hosts=[NOWHERE, NOWHERE], prefix="test", channel_layer=layer)
    own._shards = [Shard(), Shard()]
    for group in ("a", "b", "c", "d"):
        name = own._get_group_channel_name(group)
        await own.group_send(group, {"type": "message"})
        assert name.startswith("test")
        assert own._get_shard(name).published[-1] == name


# Celery, Prometheus and Python


def test_celery_app_forgets_its_pools_after_a_fork():
    app: Any = Celery("test", broker="memory://", set_as_current=False)
    assert app.pool is app._pool
    assert app.amqp.producer_pool is app.amqp._producer_pool
    app._after_fork()
    assert (app._pool, app.amqp._producer_pool) == (None, None)


def test_prometheus_registry_knows_names_and_labels_of_collectors():
    registry = CollectorRegistry()
    counter = Counter("test_things", "Things.", ["kind", "size"], registry=registry)
    ((collector, names),) = registry._collector_to_names.items()
    assert collector is counter
    assert names[0] == "test_things"
    assert tuple(counter._labelnames) == ("kind", "size")


def test_argparse_parser_lists_its_actions_in_order():
    parser = ArgumentParser()
    added = [parser.add_argument("--one"), parser.add_argument("two")]
    assert parser._actions[1:] == added


def test_argparse_formats_texts_in_one_method():
    class Formatter(HelpFormatter):
        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return f"as it is: {text}"

    parser = ArgumentParser(formatter_class=Formatter, epilog="examples:\n  one")
    assert "as it is: examples:\n  one" in parser.format_help()


def test_enum_maps_values_to_members():
    class Code(IntEnum):
        ONE = 1

    assert Code._value2member_map_ == {1: Code.ONE}


# The page

DOCUMENTED = {"_current_frames", "_default_manager", "_exit", "_meta", "_replace", "_value_"}
PRIVATE = re.compile(r"_[A-Za-z]\w*")
ROW = re.compile(r"^\| (`_\w+`(?:, `_\w+`)*) \|.*\| `(test_\w+)` \|$", re.MULTILINE)


def is_private(name: object) -> bool:
    return isinstance(name, str) and PRIVATE.fullmatch(name) is not None


def is_own(node: ast.expr) -> bool:
    """Whether an object is `self`, `cls` or `super()`: its class tells whose attribute it is."""
    return ast.unparse(node) in {"self", "cls", "super()"}


def of_other_objects(tree: ast.AST) -> Iterator[str]:
    """Private names that are read from other objects, asked for by name, or imported."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=owner, attr=name) if is_private(name) and not is_own(owner):
                yield name
            case ast.Call(func=ast.Name(id=called), args=[_, ast.Constant(value=name), *_]):
                if called in {"getattr", "setattr", "hasattr", "delattr"} and is_private(name):
                    yield str(name)
            case ast.ImportFrom(names=names):
                yield from (alias.name for alias in names if is_private(alias.name))


def of_class(node: ast.ClassDef) -> set[str]:
    """Private names that a class defines, or uses of itself."""
    found = set()
    for inner in ast.walk(node):
        match inner:
            case ast.Attribute(value=owner, attr=name) if is_own(owner):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
        if inner in node.body and isinstance(inner, ast.Assign | ast.AnnAssign):
            targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
            found.update(ast.unparse(target) for target in targets)
    return set(filter(is_private, found))


def names_in(code: CodeType) -> set[str]:
    inner = [names_in(one) for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*inner)


def of_foreign_bases(kind: type) -> set[str]:
    """Names that the other libraries' bases of a class define, or use in their methods."""
    found: set[str] = set()
    for base in kind.__mro__:
        if base is not object and base.__module__.partition(".")[0] not in PACKAGES:
            found.update(vars(base))
            for value in vars(base).values():
                for one in (value, *(getattr(value, part, None) for part in ("fget", "__func__"))):
                    if isinstance(one, FunctionType):
                        found |= names_in(one.__code__)
    return found


def used() -> dict[str, set[str]]:
    """Private name of another library → the files that use it."""
    found: dict[str, set[str]] = {}
    for path in sorted(path for top in PACKAGES for path in (ROOT / top).rglob("*.py")):
        tree, file = ast.parse(path.read_text()), str(path.relative_to(ROOT))
        names = set(of_other_objects(tree))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.bases and (own := of_class(node)):
                module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
                names |= own & of_foreign_bases(getattr(module, node.name))
        for name in names - OURS - DOCUMENTED:
            found.setdefault(name, set()).add(file)
    return found


def on_the_page() -> set[str]:
    return {name for names, _ in ROW.findall(PAGE) for name in re.findall(r"`(\w+)`", names)}


def test_page_lists_what_the_source_uses():
    listed, found = on_the_page(), used()
    assert {name: files for name, files in found.items() if name not in listed} == {}
    assert listed - set(found) == set()


def test_page_names_documented_attributes():
    assert [name for name in sorted(DOCUMENTED) if f"`{name}`" not in PAGE] == []


def test_page_names_a_test_for_each_row():
    named = [test for _, test in ROW.findall(PAGE)]
    assert len(named) > 10
    assert [test for test in named if test not in globals()] == []
    tables = PAGE.partition("## Documented")[0]
    assert len(re.findall(r"^\| `", tables, re.MULTILINE)) == len(named)


def test_page_has_the_pinned_versions():
    pins = dict(re.findall(r"^([\w.-]+?)==(\S+)", (ROOT / "requirements.txt").read_text(), re.M))
    on_page = dict(re.findall(r"^## ([\w-]+) (\d\S*)$", PAGE, re.MULTILINE))
    assert len(on_page) > 5
    assert {name: pins.get(name.lower()) for name in on_page} == on_page


def test_page_names_test_files_that_exist():
    files = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)
    assert len(files) > 3
    assert [file for file in files if not (ROOT / file).exists()] == []
