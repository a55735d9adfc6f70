"""What all commands share: help, exit status, data alone on stdout, progress for people alone."""

import errno
import io
import json
import shlex

import pytest
from django.core.management import CommandError, find_commands, load_command_class
from django.db import connection

from push.management import console, reference
from push.management.console import ImgoCommand

COMMANDS = sorted(find_commands(reference.__file__.rsplit("/", 1)[0]))


def test_the_page_of_commands_is_up_to_date():
    """Else: manage.py shell -c "from push.management import reference; reference.write()"."""
    assert reference.page().read_text() == reference.markdown()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_with_an_example(name):
    command = load_command_class("push", name)
    assert isinstance(command, console.ImgoCommand)
    text = command.create_parser("manage.py", name).format_help()
    assert " ".join(command.help.split()) in " ".join(text.split())
    assert f"examples:\n  manage.py {name}" in text
    for action in command.create_parser("manage.py", name)._actions:
        assert action.help, action.dest


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_right_usage(name):
    command = load_command_class("push", name)
    parser = command.create_parser("manage.py", name)
    for line in command.examples:
        parser.parse_args(shlex.split(line.split(" < ")[0]))


@pytest.mark.django_db
def test_a_database_without_its_tables_says_what_to_do(run):
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE push_dedupe")
    with pytest.raises(CommandError, match=r"run 'manage\.py migrate' first"):
        run("prune")


def test_a_setting_of_the_wrong_type_is_one_line(run, imgo):
    imgo(MAX_BODY="big")
    with pytest.raises(CommandError, match="MAX_BODY='big' must be of type int"):
        run("push", "--all", "1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain", "u1"), "The database cannot be reached. connection to server at"),
        (("push", "--all", "1"), "nothing was accepted. connection to server at"),
    ],
)
def test_a_database_that_is_away_is_one_line_with_the_reason(
    run, database_down, caplog, arguments, said
):
    with pytest.raises(CommandError) as error:
        run(*arguments)
    assert said in str(error.value)
    assert "Connection refused" in str(error.value)
    assert "\n" not in str(error.value)
    assert caplog.messages == []


@pytest.mark.django_db
def test_a_pipe_that_nobody_reads_is_left_without_a_word(run, monkeypatch):
    def nobody_reads(*_):
        raise BrokenPipeError

    left = []
    monkeypatch.setattr(console, "leave_pipe", lambda: left.append(True))
    monkeypatch.setattr(ImgoCommand, "print_json", nobody_reads)
    with pytest.raises(SystemExit) as end:
        run("apikey", "--list", "--json")
    assert (end.value.code, left) == (console.NOBODY_READS, [True])


@pytest.mark.django_db
def test_a_disk_that_is_full_is_one_line(run, monkeypatch):
    def is_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ImgoCommand, "print_json", is_full)
    with pytest.raises(CommandError, match="No space left on device"):
        run("apikey", "--list", "--json")


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["x", "9", "3-1", "-1", "0-99999", "1,,2"])
@pytest.mark.services
def test_partitions_that_make_no_sense_start_no_workers(run, text):
    with pytest.raises(CommandError, match="partition"):
        run("workers", f"--partitions={text}")


def test_a_log_level_that_there_is_not_starts_no_workers(run):
    with pytest.raises(CommandError, match="invalid choice: 'LOUD'"):
        run("workers", "--log-level", "loud")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_prints_data_shows_an_example_of_it(name):
    command = load_command_class("push", name)
    can = "--json" in command.create_parser("manage.py", name).format_help().split()
    assert bool(command.data) is can
    assert all(json.loads(text) for text in command.data)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "total", "is_shown"),
    [(io.StringIO, 10, False), (Terminal, 10, True), (Terminal, 0, False)],
)
def test_a_bar_is_for_work_and_a_terminal_alone(monkeypatch, capsys, stream, total, is_shown):
    monkeypatch.setattr("sys.stderr", stderr := stream())
    with console.progress_bar("pruning", total) as steps:
        steps.advance(total / 2)
        steps.at(total)
    assert ("pruning" in stderr.getvalue()) is is_shown
    assert capsys.readouterr().out == ""


def test_ctrl_c_is_no_traceback(run, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("push.management.commands.explain.check_name", interrupt)
    with pytest.raises(CommandError, match="Interrupted") as error:
        run("explain", "u1")
    assert error.value.returncode == 130


def test_a_table_is_as_wide_as_what_is_in_it():
    out = io.StringIO()
    command = console.ImgoCommand(stdout=out)
    command.print_table(("a", "b"), [("long", 1), ("x\x1b[31m", "")])
    assert out.getvalue() == "a          b\nlong       1\nx\\x1b[31m\n"


def test_data_is_json():
    out = io.StringIO()
    console.ImgoCommand(stdout=out).print_json({"ä": [1]})
    assert json.loads(out.getvalue()) == {"ä": [1]}
    assert "ä" in out.getvalue()
