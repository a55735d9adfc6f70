"""The settings: what they are read from, which values they take, when they are read again."""

import os

import pytest
from django.core.exceptions import ImproperlyConfigured

from imgo_site.conf import ImgoSettings, conf, known_names, load


def test_what_is_not_set_has_its_default():
    assert conf.MAX_BODY == ImgoSettings.MAX_BODY == 64 * 1024


def test_the_dictionary_overrides_the_default(imgo):
    imgo(MAX_BODY=10)
    assert conf.MAX_BODY == 10


def test_the_environment_overrides_the_dictionary(imgo, monkeypatch):
    monkeypatch.setenv("IMGO_MAX_BODY", "20")
    imgo(MAX_BODY=10)
    assert conf.MAX_BODY == 20


def test_a_change_of_the_setting_is_seen_and_so_is_its_end(settings):
    before = conf.TTL
    original = settings.IMGO
    settings.IMGO = {"TTL": before + 1}
    assert before + 1 == conf.TTL
    settings.IMGO = original
    assert before == conf.TTL


def test_a_value_is_read_once(imgo, monkeypatch):
    imgo()
    before = conf.MAX_KEYS
    monkeypatch.setenv("IMGO_MAX_KEYS", str(before + 1))
    assert before == conf.MAX_KEYS
    imgo()
    assert before + 1 == conf.MAX_KEYS


def test_an_unknown_name_is_no_setting():
    with pytest.raises(AttributeError, match="NO_SUCH"):
        _ = conf.NO_SUCH


def test_every_setting_is_known_and_has_a_text():
    fields = ImgoSettings.__dataclass_fields__
    assert known_names() == set(fields)
    assert all(len(field.metadata["help"]) > 10 for field in fields.values())


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("ROOMS_OPEN", "no", False),
        ("ROOMS_OPEN", " On ", True),
        ("ROOMS_OPEN", "", False),
        ("ROOMS_OPEN", False, False),
        ("TTL", " 12 ", 12),
        ("TTL", -1, -1),
        ("NODE_LEASE", "0.5", 0.5),
        ("NODE_LEASE", 2, 2.0),
        ("NODE_NAME", "", ""),
        ("LEGACY_TRUSTED_NETWORKS", "10.0.0.0/8, ::1/128,", ["10.0.0.0/8", "::1/128"]),
        ("LEGACY_TRUSTED_NETWORKS", "", []),
        ("LEGACY_TRUSTED_NETWORKS", ["10.0.0.0/8"], ["10.0.0.0/8"]),
        ("TTL", None, ImgoSettings.TTL),
    ],
)
def test_a_value_becomes_the_type_of_the_setting(imgo, name, value, read):
    imgo(**{name: value})
    got = getattr(load(), name)
    assert got == read
    assert type(got) is type(read)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROOMS_OPEN", "perhaps"),
        ("ROOMS_OPEN", 1),
        ("TTL", "soon"),
        ("TTL", "1.5"),
        ("TTL", ""),
        ("TTL", True),
        ("TTL", 1.5),
        ("NODE_LEASE", True),
        ("NODE_LEASE", "long"),
        ("NODE_NAME", 7),
        ("LEGACY_TRUSTED_NETWORKS", 7),
        ("LEGACY_TRUSTED_NETWORKS", b"10.0.0.1"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(imgo, name, value):
    imgo(**{name: value})
    with pytest.raises(ImproperlyConfigured, match=f"{name}={value!r} must be of type"):
        load()


def test_lists_are_not_shared(imgo):
    load().LEGACY_TRUSTED_NETWORKS.append("0.0.0.0/0")
    imgo()
    assert conf.LEGACY_TRUSTED_NETWORKS == []


@pytest.mark.parametrize("given", [None, 5, "x", ["a"], [("TTL", 1)], 10**5000], ids=type)
def test_settings_that_are_no_dictionary_are_refused(settings, given):
    settings.IMGO = given
    with pytest.raises(ImproperlyConfigured, match=r"IMGO=.+ must be a dictionary"):
        load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRUSTED_PROXIES", [["a"]]),
        ("TRUSTED_PROXIES", [5]),
        ("LEGACY_TRUSTED_NETWORKS", ["10.0.0.1", {}]),
        ("LEGACY_TRUSTED_NETWORKS", [b"10.0.0.1"]),
        ("PROXY_PROTOCOL", [None]),
        ("TRUSTED_PROXIES", [10**5000]),
    ],
    ids=lambda value: str(type(value)),
)
def test_a_list_is_of_texts(imgo, name, value):
    imgo(**{name: value})
    with pytest.raises(ImproperlyConfigured, match=f"{name} must be a list of texts"):
        load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", "a\0b"),
        ("JWT_SECRET", "secret\udcff"),
        ("TRUSTED_PROXIES", ["10.0.0.1\0"]),
        ("PROXY_PROTOCOL", "tcp,\udcff"),
    ],
)
def test_characters_that_are_no_text_are_refused_and_not_shown(imgo, name, value):
    imgo(**{name: value})
    with pytest.raises(ImproperlyConfigured, match=f"{name} has bytes that are no") as error:
        load()
    assert "secret\\" not in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["JWT_SECRET", "NODE_NAME", "API_KEY"])
def test_bytes_of_the_environment_that_are_no_text_are_refused_by_name(monkeypatch, name):
    monkeypatch.setenv(f"IMGO_{name}", os.fsdecode(b"abc\xff"))
    with pytest.raises(ImproperlyConfigured, match=f"{name} has bytes that are no UTF-8"):
        load()


def test_a_number_too_large_for_its_type_is_refused_by_name(imgo):
    imgo(HEARTBEAT_TIMEOUT=10**400)
    with pytest.raises(ImproperlyConfigured, match="HEARTBEAT_TIMEOUT is too large"):
        load()


def test_a_long_value_is_not_repeated_as_a_whole(imgo):
    imgo(TTL="x" * 10_000)
    with pytest.raises(ImproperlyConfigured, match=r"TTL='x+\.\.\. must be of type int") as error:
        load()
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_variable_counts_as_none(settings, monkeypatch, text):
    settings.IMGO = {"TTL": 7}
    for name in known_names():
        monkeypatch.setenv(f"IMGO_{name}", text)
    assert load() == ImgoSettings(TTL=7)
