"""manage.py push: what is stored, and what is refused. What arrives is in tests/e2e."""

from datetime import UTC, datetime

import pytest
from django.core.management import CommandError

from imgo_site.errors import Unavailable
from offline.models import Message, Pending, ScheduledPush
from push.devices.tables import Notice

pytestmark = pytest.mark.django_db


def body_of(message: Message) -> bytes:
    return bytes(message.body)


def test_the_id_is_printed_alone_and_the_body_stays_as_it_was_written(run):
    text = run("push", "--key", "u1", '{"n":  1.0}')
    message = Message.objects.get(pk=int(text))
    assert text == f"{message.pk}\n"
    assert (body_of(message), message.is_json) == (b'{"n":  1.0}', True)
    assert (message.by, message.keys, message.op) == ("manage.py push", ["u1"], 5)
    assert Pending.objects.filter(message=message, key="u1").exists()


@pytest.mark.parametrize(
    ("target", "audience"),
    [
        (["--key", "a", "--key", "b"], ("keys", ["a", "b"], "")),
        (["--room", "r"], ("room", None, "r")),
        (["--all"], ("all", None, "")),
    ],
)
def test_whom_it_is_for(data, target, audience):
    message = Message.objects.get(pk=int(data("push", *target, "1")["id"]))
    assert (message.audience, message.keys, message.room) == audience


def test_the_body_from_the_standard_input(run, stdin):
    stdin('"ä"\n'.encode())
    assert body_of(Message.objects.get(pk=int(run("push", "--all", "-")))) == '"ä"'.encode()


def test_options_reach_the_message(run):
    message = Message.objects.get(
        pk=int(run("push", "--key", "u", "1", "--ttl", "60", "--no-store", "--op", "1000"))
    )
    assert (message.stored, message.op) == (False, 1000)
    assert (message.expires_at - message.created_at).total_seconds() == 60
    first = run("push", "--key", "u", "1", "--dedupe-id", "d")
    assert run("push", "--key", "u", "2", "--dedupe-id", "d") == first


@pytest.mark.parametrize("send_at", ["90", "2026-12-24T18:00:00+01:00"])
def test_push_with_a_time_is_scheduled(run, imgo, send_at):
    imgo(MAX_DELAY=10**8)
    row = ScheduledPush.objects.get(pk=int(run("push", "--key", "u", "1", "--send-at", send_at)))
    found = (row.due_at - row.created_at).total_seconds() if send_at == "90" else row.due_at
    assert found in (90, datetime(2026, 12, 24, 17, tzinfo=UTC))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--all", "1", "--exclude", "s-1"], "exclude is for"),
        (["--all", "1", "--send-at", "soon"], "send_at must be a time with a zone"),
        (["--all", "hello"], """quotes of its own: '"hello"'"""),
        (["--all", "it's"], "quotes of its own"),
        (["--all", "NaN"], "not JSON"),
        (["--all", ""], "is empty"),
        (["--all", "1", "--ttl", "0"], "ttl must be"),
        (["--all", "1", "--op", "6"], "op must be"),
        (["--key", "", "1"], "non-empty"),
        (["--room", "a\nb", "1"], "control characters"),
        (["--key", "u", '"' + "x" * 65_536 + '"'], "at most 65536 bytes"),
        (["1"], "one of the arguments --key --keys-from --room --all is required"),
        (["--all", "--room", "r", "1"], "not allowed with"),
        (["--all"], "body"),
        (["--room", "", "1"], "non-empty"),
        (["--key", "u", "1", "--dedupe-id", ""], "A dedupe_id must be"),
        (["--key", "u", '"caf\udce9"'], "not JSON"),  # typed in a terminal of Latin-1
        (["--keys-from", "-", "-"], "either the keys or the body"),
        (["--keys-from", "/no/such/file", "1"], "No such file or directory: '/no/such/file'"),
        (["--keys-from", "/", "1"], "Is a directory"),
    ],
)
def test_what_cannot_be_pushed_is_one_line(run, arguments, part):
    with pytest.raises(CommandError) as error:
        run("push", *arguments)
    assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not Message.objects.exists()


def test_nothing_is_stored_when_the_database_is_away(run, database_down):
    with pytest.raises(CommandError, match="nothing was accepted"):
        run("push", "--all", "1")


def test_bytes_that_are_no_text_are_refused(run, stdin):
    stdin(b"\xff")
    with pytest.raises(CommandError, match="not JSON"):
        run("push", "--all", "-")


def test_nobody_at_the_standard_input_is_an_empty_body(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(CommandError, match="The body is empty"):
        run("push", "--all", "-")


def test_keys_come_from_a_file_each_once_in_as_many_messages_as_they_need(data, imgo, tmp_path):
    imgo(MAX_KEYS=2)
    file = tmp_path / "keys.txt"
    file.write_bytes("a\r\nä\n\nb c\na\n".encode())
    arguments = ("push", "--keys-from", str(file), "--dedupe-id", "sale", "1")
    ids = data(*arguments)["ids"]
    found = Message.objects.in_bulk([int(one) for one in ids])
    assert [found[int(one)].keys for one in ids] == [["a", "ä"], ["b c"]]
    assert data(*arguments)["ids"] == ids


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"a\n\xff\n", "Line 2 of -: is not UTF-8"),
        (b"a\n\n" + b"x" * 256, "Line 3 of -: A key has at most"),
        (b"a\nb\0", "Line 2 of -: A key must not contain control"),
        (b"\n\r\n", "There is no key in -"),
        (b"", "There is no key in -"),
    ],
)
def test_a_wrong_line_among_the_keys_is_named_and_nothing_is_pushed(run, stdin, content, part):
    stdin(content)
    with pytest.raises(CommandError) as error:
        run("push", "--keys-from", "-", "1")
    assert part in str(error.value)
    assert not Message.objects.exists()


def test_a_fault_in_the_middle_says_how_far_it_was(run, stdin, imgo, monkeypatch):
    imgo(MAX_KEYS=1)
    stdin(b"a\nb\nc\n")
    pushed = []

    def accept(push, by):
        if pushed:
            raise Unavailable("No database.")
        pushed.append(push.keys)
        return 1

    monkeypatch.setattr("push.management.commands.push.accept_push", accept)
    with pytest.raises(CommandError, match="After 1 of 3 messages: No database"):
        run("push", "--keys-from", "-", "1")


def test_push_with_notify_has_a_notice(run, imgo):
    imgo(WEBPUSH_PRIVATE_KEY="k")
    number = run("push", "--key", "u1", "--notify", '{"title": "Hi"}', "--notify-after", "5", "1")
    assert (Notice.objects.get().pk, Notice.objects.get().content) == (
        int(number), '{"title":"Hi"}',
    )  # fmt: skip
    for wrong in ("Hi", '["Hi"]', '{"body": "Hi"}'):
        with pytest.raises(CommandError):
            run("push", "--key", "u1", "--notify", wrong, "1")
