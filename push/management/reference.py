"""Generator of docs/commands.md, from the commands' parsers.

After a change: python manage.py shell -c "from push.management import reference; reference.write()"
"""

from argparse import Action, ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.management import find_commands, load_command_class
from django.core.management.base import BaseCommand

from push.management.console import ImgoCommand

INTRODUCTION = """\
# The commands

`python manage.py <command> --help` says the same. With `--json` a command prints data for programs, on its standard output and nothing else there; progress and errors go to the standard error. Times are UTC, in ISO 8601. Exit status: 0 when it is done, 1 for a mistake, a service that is away or nothing found, with one line that says so, 2 for wrong usage, 130 after Ctrl-C, 141 when nobody reads the output any more; for `tail` these are how it ends, with 0.

Without `REDIS_URL` who is connected is known to the server's process alone. `push`, `sessions`, `rooms` and `kick` then ask that server over HTTP, at `IMGO_HOST` and `IMGO_HTTP_PORT`, with `IMGO_API_KEY` or the demo's key; without a server they fail.
"""  # noqa: E501 - a paragraph is a line

# The documentation's tests run its code blocks; a block that is not run needs a reason.
NOT_RUN = "<!-- not run: shows the shape; the tests of the commands run them -->"


def markdown() -> str:
    """Return the page of all commands, as Markdown."""
    folder = str(Path(__file__).parent)
    return "\n".join((INTRODUCTION, *map(_section, sorted(find_commands(folder)))))


def page() -> Path:
    """Return the path of the page."""
    return Path(settings.BASE_DIR) / "docs" / "commands.md"


def write() -> None:
    """Write the page."""
    page().write_text(markdown())


def _section(name: str) -> str:
    command = load_command_class("push", name)
    assert isinstance(command, ImgoCommand)
    lines = [f"## `{name}`", "", command.help, ""]
    rows = list(_rows(command.create_parser("manage.py", name)))
    if rows:
        lines += ["| argument | |", "|---|---|", *rows, ""]
    examples = (f"python manage.py {name} {line}".rstrip() for line in command.examples)
    lines += [NOT_RUN, "```sh", *examples, "```", ""]
    if command.data:
        lines += ["With `--json`:", "", NOT_RUN, "```json", *command.data, "```", ""]
    return "\n".join(lines)


def _rows(parser: ArgumentParser) -> Iterator[str]:
    of_django = {action.dest for action in BaseCommand().create_parser("", "")._actions}
    for action in parser._actions:
        if action.dest not in of_django:
            meaning = (action.help or "").replace("|", "\\|")
            yield f"| `{_usage(action)}` | {meaning} |"


def _usage(action: Action) -> str:
    if not action.option_strings:
        return f"[{action.dest}]" if action.nargs == "?" else action.dest
    name = action.option_strings[-1]
    return name if action.nargs == 0 else f"{name} {action.metavar or action.dest.upper()}"
