"""The settings: what they are read from, which values they take, when they are read again."""

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
