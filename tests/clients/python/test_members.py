"""The list of who is in a room: its versions, and the events that tell how it changes."""

import pytest

from imgo_client import Changed, Member
from imgo_client.members import MemberList


class Watched(MemberList):
    """A list with its events, such as "join ann"."""

    def __init__(self):
        self.events = []
        self.values = []
        super().__init__(self._note)

    def _note(self, event, value):
        self.values.append(value)
        self.events.append(event if value is None else f"{event} {value.key}")

    def told(self):
        """The events since the last call."""
        events, self.events = self.events, []
        return events

    @property
    def names(self):
        return {key: member.info.get("name") for key, member in self.members.items()}


def rows(infos):
    return [{"key": key, "info": {"name": name}} for key, name in infos.items()]


def snapshot(version, infos, **more):
    return {"version": version, "count": len(infos), "members": rows(infos), **more}


def change(base, version, joined, left, count):
    said = {"joined": rows(joined), "left": left, "count": count}
    return {"base": base, "version": version, **said}


@pytest.fixture
def found():
    """A list of ann and bob, of which nothing is left to be told."""
    found = Watched()
    found.adopt(snapshot("e.1", {"ann": "Ann", "bob": "Bob"}))
    assert found.told() == ["update"]  # they were there before: nobody joins
    return found


def test_a_change_is_told_member_by_member_then_as_a_whole(found):
    found.take(change("e.1", "e.4", {"ann": "Anna", "eve": "Eve"}, ["bob"], 2))
    assert found.told() == ["leave bob", "change ann", "join eve", "update"]
    assert found.values[2] == Changed("ann", {"name": "Anna"}, {"name": "Ann"})
    assert found.members["eve"] == Member("eve", {"name": "Eve"})
    assert (found.names, found.count) == ({"ann": "Anna", "eve": "Eve"}, 2)


def test_a_key_that_came_back_with_its_info_is_no_event(found):
    found.take(change("e.1", "e.3", {"ann": "Ann"}, [], 2))
    assert found.told() == []
    found.take(change("e.3", "e.4", {}, ["ann"], 1))
    assert found.told() == ["leave ann", "update"]


@pytest.mark.parametrize(
    ("base", "version", "is_due"),
    [
        ("e.0", "e.1", False),
        ("e.0", "e.0", False),
        ("e.2", "e.3", True),
        ("f.0", "f.1", True),
        ("e.x", "e.y", True),
        (None, None, True),
    ],
)
def test_a_change_that_does_not_fit_is_ignored_if_it_is_old(found, base, version, is_due):
    found.take(change(base, version, {"eve": "Eve"}, [], 3))
    assert (found.told(), found.is_due.is_set()) == ([], is_due)
    assert found.pause <= 1


def test_pauses_grow_until_a_change_fits(found, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 1.0)
    pauses = []
    for _ in range(6):
        found.take(change("e.8", "e.9", {}, [], 2))
        pauses.append(found.pause)
        found.take(change("e.9", "e.10", {}, [], 2))  # it is due already
        found.adopt(snapshot("e.1", {"ann": "Ann", "bob": "Bob"}))
        assert not found.is_due.is_set()
    assert pauses == [1, 2, 4, 8, 16, 30]
    found.take(change("e.1", "e.2", {}, [], 2))
    found.take(change("e.8", "e.9", {}, [], 2))
    assert found.pause == 1


def test_nothing_is_due_while_a_reply_is_awaited(found):
    found.is_awaited = True
    found.take(change("e.8", "e.9", {}, [], 2))
    assert not found.is_due.is_set()


def test_after_a_session_only_what_differs_is_told(found):
    found.lose()
    found.take(change("e.1", "e.2", {}, ["ann"], 1))  # before the list of this session
    assert (found.told(), found.is_due.is_set()) == ([], False)
    found.adopt(snapshot("e.0", {"bob": "Bob", "eve": "Eve"}))
    assert found.told() == ["leave ann", "join eve", "update"]
    found.lose()
    found.adopt(snapshot("e.7", {"bob": "Bob", "eve": "Eve"}))
    assert found.told() == []


def test_a_reset_replaces_the_list_whatever_its_version(found):
    found.take(snapshot("f.1", {"bob": "Bob", "eve": "Eve"}, reset=True))
    assert found.told() == ["leave ann", "join eve", "update"]
    found.take(change("f.1", "f.2", {}, ["eve"], 1))
    assert found.told() == ["leave eve", "update"]


def test_above_the_limit_there_is_only_a_number_and_nobody_leaves(found):
    found.take({"base": "e.1", "version": "e.2", "count": 1001, "truncated": True})
    assert (found.truncated, found.count, found.names) == (True, 1001, {})
    found.take({"base": "e.2", "version": "e.3", "count": 1002, "truncated": True})
    assert found.told() == ["update", "update"]
    found.take(snapshot("e.4", {"ann": "Ann"}, reset=True))
    assert (found.truncated, found.names, found.told()) == (False, {"ann": "Ann"}, ["update"])


def test_while_the_server_collects_its_data_nobody_leaves(found):
    found.lose()
    found.adopt(snapshot("f.1", {"bob": "Bob", "eve": "Eve"}, settling=True))
    assert found.told() == ["join eve", "update"]
    assert (found.settling, found.count, found.names.keys()) == (True, 3, {"ann", "bob", "eve"})
    assert found.is_due.is_set()
    assert 10 <= found.pause <= 20
    found.take(change("f.1", "f.2", {"kim": "Kim"}, [], 3))
    assert found.told() == ["join kim", "update"]
    found.take(snapshot("f.3", {"bob": "Bob"}, reset=True))
    assert found.told() == ["leave ann", "leave eve", "leave kim", "update"]
    assert (found.settling, found.count, found.is_due.is_set()) == (False, 1, False)


def test_after_the_end_the_list_is_empty(found):
    found.end()
    assert (found.told(), found.names, found.count) == (["update"], {}, 0)


def test_what_is_no_member_is_left_out(found):
    garbage = {"version": "e.2", "count": "many", "members": [5, {"key": 7}, {"key": "ann"}]}
    found.adopt(garbage)
    assert found.members == {"ann": Member("ann", {})}
