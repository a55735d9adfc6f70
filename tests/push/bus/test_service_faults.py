"""Texts for faults of Redis that no real server of the other tests shows."""

from ssl import SSLCertVerificationError

import pytest
from redis.asyncio.sentinel import MasterNotFoundError as NodeMasterNotFound
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.sentinel import MasterNotFoundError

from push.bus.service_faults import of_redis


@pytest.mark.parametrize("kind", [MasterNotFoundError, NodeMasterNotFound])
def test_a_master_that_no_sentinel_names_is_said_to_be_unknown(kind):
    assert of_redis(kind("imgo")) == "cannot be reached: no Sentinel answers and names a master"


def test_a_certificate_that_is_refused_is_named_as_the_cause():
    error = RedisConnectionError("Error 1 connecting")
    error.__context__ = SSLCertVerificationError(1, "self-signed certificate")
    assert of_redis(error) == "cannot be reached: TLS failed, its certificate may not be trusted"
