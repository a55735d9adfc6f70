"""URLs with Sentinels, and what Celery makes of them."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.sentinel import MasterNotFoundError

from imgo_site import redis_sentinel
from imgo_site.service_urls import check_broker_url, check_redis_url

URL = (
    "redis+sentinel://me:a%40b@one:1,[::1],three/master/2"
    "?health_check_interval=30&sentinel_password=s"
)


def test_the_parts_of_a_url():
    parts = redis_sentinel.parse(URL)
    assert parts.sentinels == [("one", 1), ("::1", 26379), ("three", 26379)]
    assert parts.service == "master"
    assert parts.options == {
        "username": "me",
        "password": "a@b",
        "db": 2,
        "health_check_interval": 30,
    }
    assert parts.sentinel_options == redis_sentinel.TIMEOUTS | {"password": "s"}


def test_tls_is_for_redis_and_sentinels():
    parts = redis_sentinel.parse("rediss+sentinel://one/master?ssl_ca_certs=/ca.pem")
    for options in (parts.options, parts.sentinel_options):
        assert (options["ssl"], options["ssl_ca_certs"]) == (True, "/ca.pem")
    assert redis_sentinel.broker("rediss+sentinel://one/m?ssl_ca_certs=/ca.pem").tls == {
        "ssl_ca_certs": "/ca.pem"
    }


def test_celery_gets_all_sentinels_and_the_service():
    broker = redis_sentinel.broker(URL)
    assert broker.url == ";".join(
        f"sentinel://me:a%40b@{host}/2" for host in ("one:1", "[::1]:26379", "three:26379")
    )
    assert broker.transport_options["master_name"] == "master"
    assert broker.transport_options["sentinel_kwargs"]["password"] == "s"
    assert broker.tls is None
    check_broker_url(URL)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+sentinel://user:secret@one", "names no service"),
        ("redis+sentinel://user:secret@one/master/first", "number of a database"),
        ("redis+sentinel://user:secret@one:port/master", "not a number"),
        ("redis+sentinel://user:secret@one:99999/master", "not a number"),
        ("redis+sentinel://user:secret@,two/master", "lacks the host"),
        ("redis+sentinel://user:secret@one/master?colour=red", "no option 'colour'"),
        ("redis+sentinel://one/master?socket_timeout=soon", "socket_timeout"),
    ],
)
def test_wrong_urls_are_refused_with_the_reason(url, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        check_redis_url(url)
    assert "secret" not in str(caught.value)


class Sentinels:
    """What the Sentinels of a pool answer: the test's Redis, by a host name that may change."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port = urlsplit(url).port
        self.host = "127.0.0.1"  # "" if they do not answer
        self.asked = 0
        self._monkeypatch = monkeypatch

    def answer(self, name: str) -> tuple[str, int | None]:
        assert name == "master"
        self.asked += 1
        if not self.host:
            raise MasterNotFoundError
        return self.host, self.port

    def pool_of_threads(self) -> redis_sentinel.ReaderPool:
        pool = redis_sentinel.ReaderPool("redis+sentinel://one/master")
        self._monkeypatch.setattr(pool.sentinel_manager, "discover_master", self.answer)
        return pool

    def pool_of_a_loop(self) -> redis_sentinel.NodePool:
        async def answer(name: str) -> tuple[str, int | None]:
            return self.answer(name)

        pool = redis_sentinel.NodePool("redis+sentinel://one/master")
        self._monkeypatch.setattr(pool.sentinel_manager, "discover_master", answer)
        return pool


@pytest.fixture
def sentinels(redis_client, settings, monkeypatch) -> Sentinels:
    return Sentinels(settings.REDIS_URL, monkeypatch)


def used_host(pool: redis_sentinel.ReaderPool) -> str:
    """The host to which a connection of the pool goes, which answers."""
    connection = pool.get_connection()
    connection.send_command("PING")
    assert connection.read_response() == b"PONG"
    pool.release(connection)
    return str(connection.host)


async def host_used_by_node(pool: redis_sentinel.NodePool) -> str:
    connection = await pool.get_connection()
    await connection.send_command("PING")
    assert await connection.read_response() == b"PONG"
    await pool.release(connection)
    return str(connection.host)


def test_pool_of_threads_follows_the_master_at_the_next_question(sentinels):
    pool = sentinels.pool_of_threads()
    assert used_host(pool) == "127.0.0.1"
    asked = sentinels.asked
    sentinels.host = "localhost"
    assert used_host(pool) == "127.0.0.1"  # the idle connection, without a question
    assert sentinels.asked == asked
    pool._asked = float("-inf")
    assert used_host(pool) == "localhost"
    pool.disconnect()


async def test_pool_of_a_loop_follows_the_master_at_the_next_question(sentinels):
    pool = sentinels.pool_of_a_loop()
    assert await host_used_by_node(pool) == "127.0.0.1"
    asked = sentinels.asked
    sentinels.host = "localhost"
    assert await host_used_by_node(pool) == "127.0.0.1"
    assert sentinels.asked == asked
    pool._asked = float("-inf")
    assert await host_used_by_node(pool) == "localhost"
    await pool.disconnect()


def test_pool_of_threads_keeps_the_master_while_no_sentinel_answers(sentinels):
    pool = sentinels.pool_of_threads()
    assert used_host(pool) == "127.0.0.1"
    pool._asked, sentinels.host = float("-inf"), ""
    asked = sentinels.asked
    assert used_host(pool) == "127.0.0.1"
    assert sentinels.asked == asked + 1
    pool.disconnect()
    with pytest.raises(MasterNotFoundError):
        pool.get_connection()


async def test_pool_of_a_loop_keeps_the_master_while_no_sentinel_answers(sentinels):
    pool = sentinels.pool_of_a_loop()
    assert await host_used_by_node(pool) == "127.0.0.1"
    pool._asked, sentinels.host = float("-inf"), ""
    asked = sentinels.asked
    assert await host_used_by_node(pool) == "127.0.0.1"
    assert sentinels.asked == asked + 1
    await pool.disconnect()
    with pytest.raises(MasterNotFoundError):
        await pool.get_connection()


@pytest.mark.parametrize("all_connections", [False, True])
def test_pool_of_threads_closes_sentinels_only_with_all(sentinels, monkeypatch, all_connections):
    pool = sentinels.pool_of_threads()
    closed: list[Any] = []
    monkeypatch.setattr(pool.sentinel_manager, "close", lambda: closed.append(None))
    pool.disconnect(inuse_connections=all_connections)
    assert len(closed) == all_connections


@pytest.mark.parametrize("all_connections", [False, True])
async def test_pool_of_a_loop_closes_sentinels_only_with_all(
    sentinels, monkeypatch, all_connections
):
    pool = sentinels.pool_of_a_loop()
    closed: list[Any] = []

    async def close() -> None:
        closed.append(None)

    monkeypatch.setattr(pool.sentinel_manager, "aclose", close)
    await pool.disconnect(inuse_connections=all_connections)
    assert len(closed) == all_connections
