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

`python manage.py <command> --help` prints the same text.

**Output.** With `--json` a command prints only JSON on its standard output. Progress and errors go to the standard error. Times are UTC in ISO 8601: `2026-11-26T08:20:57Z`, with milliseconds or microseconds where they matter. Only the text of `tail` is shorter: `08:20:57`, the time of day in UTC.

| exit status | meaning |
|---|---|
| 0 | The command did its work. |
| 1 | An error, an unavailable service, or nothing found. One line on the standard error gives the reason, where the output does not. |
| 2 | Wrong usage. |
| 130 | Ctrl-C stopped the command. |
| 141 | The reader of the output has gone, as behind `\\| head -1`. |

`tail` ends with 0 after Ctrl-C and after its reader has gone. `explain KEY` ends with 0 for a key that imgo has never seen, because any string may be a key.

**Without `REDIS_URL`** only the server's process knows which keys are connected. `push`, `sessions`, `rooms`, `kick` and `explain` then call that server over HTTP, at `IMGO_HOST` and `IMGO_HTTP_PORT`, with `IMGO_API_KEY` or the API key of the demo. Without a server `explain` says that it does not know whether the key is connected; the others fail.
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
