"""URLs with Sentinels, and what Celery makes of them."""

import pytest

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
