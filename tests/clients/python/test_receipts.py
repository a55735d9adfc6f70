"""What is remembered of messages, in memory and in a file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgo_client import FileSeen, Seen
from imgo_client.receipts import Receipts


def test_as_many_ids_are_remembered_as_there_is_room_for():
    seen = Seen(3)
    for message_id in (1, 2, 3, 2, 4):
        seen.add(message_id)
    assert (list(seen), 1 in seen, 4 in seen, seen.is_full) == ([2, 3, 4], False, True, True)
    with pytest.raises(ValueError, match="at least one"):
        Seen(0)


def test_a_file_remembers_across_processes(tmp_path):
    path = tmp_path / "seen"
    seen = FileSeen(path, limit=2)
    assert list(seen) == []
    for message_id in (1, 2, 3):
        seen.add(message_id)
    assert not path.exists()
    seen.save()
    assert list(FileSeen(path)) == [2, 3]
    assert list(FileSeen(path, limit=1)) == [3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["seen"]


def test_a_file_is_written_only_when_there_is_something_new(tmp_path):
    seen = FileSeen(tmp_path / "seen")
    seen.save()
    assert list(tmp_path.iterdir()) == []
    seen.add(1)
    seen.save()
    (tmp_path / "seen").unlink()
    seen.save()
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes").write_text("buy milk\n")
    with pytest.raises(ValueError, match="something else"):
        FileSeen(tmp_path / "notes")
    with pytest.raises(IsADirectoryError):
        FileSeen(tmp_path)
    assert (tmp_path / "notes").read_text() == "buy milk\n"


def test_a_write_that_was_cut_off_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "seen"
    seen = FileSeen(path)
    seen.add(1)
    seen.save()
    seen.add(2)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            seen.save()
    assert list(FileSeen(path)) == [1]
    seen.save()
    assert list(FileSeen(path)) == [1, 2]


def test_what_is_handled_is_acknowledged_until_that_was_sent():
    receipts = Receipts(Seen(), 0)
    for message_id in (1, 2):
        assert receipts.is_new(message_id)
        receipts.hold(message_id)
        assert not receipts.is_new(message_id)
    assert receipts.due(1_024) == []
    receipts.handled(1)
    receipts.handled(1)
    receipts.handled(0)
    assert receipts.due(1_024) == receipts.due(1_024) == [["1"]]
    receipts.sent(["1"])
    assert receipts.due(1_024) == []
    assert not receipts.is_new(1)
    assert receipts.due(1_024) == [["1"]]


def test_what_failed_is_new_again_unless_it_was_acknowledged_by_hand():
    receipts = Receipts(Seen(), 0)
    for message_id in (1, 2):
        receipts.hold(message_id)
    receipts.handled(2)
    for message_id in (1, 2):
        receipts.failed(message_id)
    assert (receipts.is_new(1), receipts.is_new(2)) == (True, False)


@given(st.sets(st.integers(1, 2**63 - 1), max_size=200), st.integers(30, 200))
def test_acknowledgements_fit_and_none_is_missing(ids, room):
    receipts = Receipts(Seen(), 0)
    for message_id in ids:
        receipts.handled(message_id)
    lists = receipts.due(room)
    assert all(len(",".join(f'"{one}"' for one in part)) + 2 <= room for part in lists)
    assert sorted(int(one) for part in lists for one in part) == sorted(ids)


def test_since_follows_at_the_distance_of_what_is_remembered():
    receipts = Receipts(Seen(3), 100)
    for message_id in (101, 102):
        receipts.handled(message_id)
    assert receipts.since == 100
    for message_id in (103, 104, 105):
        receipts.handled(message_id)
    assert receipts.since == 102  # so 103, 104 and 105 come again, and are dropped


def test_since_stays_below_what_was_not_handled():
    receipts = Receipts(Seen(2), 100)
    receipts.hold(101)
    receipts.hold(102)
    receipts.failed(101)
    for message_id in (103, 104, 105):
        receipts.handled(message_id)
    assert receipts.since == 100
    receipts.hold(101)
    receipts.handled(101)
    receipts.handled(102)
    receipts.handled(106)
    receipts.handled(107)
    assert receipts.since == 105


def test_without_since_there_is_none():
    receipts = Receipts(Seen(1), 0)
    receipts.handled(5)
    assert receipts.since == 0
