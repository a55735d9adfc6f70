"""Base of all commands: their errors, their output of data, and their progress bars."""

import json
import logging
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Literal

from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    DjangoHelpFormatter,
)
from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error as DatabaseError
from django.db import ProgrammingError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from imgo_site.errors import ImgoError
from imgo_site.setup_errors import describe

Row = Sequence[object]
EXAMPLES = "examples:"
INTERRUPTED = 130  # exit status in shells of a program that Ctrl-C has ended
NOBODY_READS = 141  # exit status if the reader of the output has gone, as behind `| head -1`


class _Formatter(DjangoHelpFormatter):
    """Formatter with Django's order of options, which keeps the line ends of examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLES) else super()._fill_text(text, width, indent)


def printable(text: str) -> str:
    """Return `text` with control characters escaped, so that it cannot control the terminal.

    Clients and callers choose the names in it.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class ImgoCommand(BaseCommand):
    """Base of commands, which report an error in one line.

    The exit status is 1 for an error, 2 for wrong usage. Subclasses implement `run`, which may
    raise an `ImgoError` or a database's error.
    """

    # Only servers run the checks: their warnings do not belong in each push of a script.
    requires_system_checks: list[str] | tuple[str, ...] | Literal["__all__"] = ()

    examples: ClassVar[Sequence[str]] = ()  # lines without "manage.py", shown by --help
    data: ClassVar[Sequence[str]] = ()  # an example of each kind of JSON that --json prints

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return Django's parser, with the examples."""
        if self.examples:
            lines = (f"  manage.py {subcommand} {line}".rstrip() for line in self.examples)
            kwargs["epilog"] = "\n".join((EXAMPLES, *lines))
        return super().create_parser(prog_name, subcommand, formatter_class=_Formatter, **kwargs)

    def check(self, *args: Any, **options: Any) -> None:
        """Run the checks; report settings that make other apps' checks fail as one line."""
        try:
            super().check(*args, **options)
        except CommandError:
            raise
        except Exception as error:
            raise CommandError(f"Wrong settings: {describe(error)}") from error

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Call `run`; report errors that a user can act on as one line."""
        faults = Faults(is_server=bool(self.requires_system_checks))
        try:
            with faults:
                self.run(**options)
                self.stdout.flush()
        except ImgoError as error:
            raise CommandError(error.message + faults.reason(error.__cause__)) from None
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            raise CommandError(faults.tell(error)) from None
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=INTERRUPTED) from None
        except BrokenPipeError:
            leave_pipe()
            sys.exit(NOBODY_READS)
        except OSError as error:
            raise CommandError(str(error)) from None

    def run(self, **options: Any) -> None:
        """Do the work of the command. `options`: the parsed arguments."""
        raise NotImplementedError

    def print_json(self, data: object) -> None:
        """Print data as JSON, for programs."""
        self.stdout.write(json.dumps(data, cls=DjangoJSONEncoder, indent=2, ensure_ascii=False))

    def print_table(self, header: Row, rows: Iterable[Row]) -> None:
        """Print a table whose columns are as wide as their longest cell."""
        lines = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())


def refuse_wrong_settings(messages: Iterable[CheckMessage]) -> None:
    """Raise `CommandError` for the first error of system checks: few commands run all checks."""
    for message in messages:
        if message.is_serious():
            raise CommandError(f"{message.msg} {message.hint or ''}".rstrip())


class Faults(logging.Filter):
    """Filter that holds back what libraries log about an unavailable database.

    The pool logs the reason of each failed attempt, but raises only that it has no connection. The
    command adds the last reason to its own line. For a server (`is_server`) it filters nothing.
    """

    LOGGERS = ("psycopg.pool", "push.accept.accept")

    def __init__(self, *, is_server: bool) -> None:
        super().__init__()
        self._names = () if is_server else self.LOGGERS
        self._last = ""

    def __enter__(self) -> None:
        for name in self._names:
            logging.getLogger(name).addFilter(self)

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the message of the pool; return False for every record."""
        if record.name == "psycopg.pool":
            self._last = record.getMessage()
        return False

    def tell(self, error: DatabaseError) -> str:
        """Return one line that describes an error of the database."""
        # Postgres and SQLite raise different errors for a missing table.
        if isinstance(error, ProgrammingError) or "no such table" in str(error):
            return f"The database is not up to date ({error}): run 'manage.py migrate' first."
        return f"The database cannot be reached.{self.reason(error)}"

    def reason(self, error: BaseException | None) -> str:
        """Return the database library's reason, with a leading space; "" for other errors."""
        if not isinstance(error, DatabaseError):
            return ""
        text = self._last.rpartition("connection failed: ")[2] or str(error)
        return f" {' '.join(text.split())}"


def leave_pipe() -> None:
    """Discard the rest of the output, so that Python reports no broken pipe at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_json(parser: ArgumentParser) -> None:
    """Add the argument `--json`."""
    parser.add_argument("--json", action="store_true", help="print data instead of text")


class ProgressSteps:
    """Progress of one piece of work."""

    def __init__(self, progress: Progress, title: str, total: float) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total)

    def at(self, done: float) -> None:
        """Set the amount that is done, in units of the total."""
        self._progress.update(self._task, completed=done)

    def advance(self, count: float) -> None:
        """Add to the amount that is done."""
        self._progress.advance(self._task, count)


@contextmanager
def progress_bar(title: str, total: float) -> Iterator[ProgressSteps]:
    """Show a progress bar on stderr if that is a terminal and `total` is not 0."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        disable=not (total and sys.stderr.isatty()),
    )
    with progress:
        yield ProgressSteps(progress, title, total)
