"""Connections to Redis are cheap in the tests: they do not read the metadata of their package."""

from importlib import metadata

import pytest
import redis


def test_connection_of_a_test_reads_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(metadata, "version", names.append)
    connection = redis.Redis().connection_pool.make_connection()
    assert (names, connection.driver_info.lib_version) == ([], redis.__version__)
