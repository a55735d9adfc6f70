"""What all commands share: how they fail, print data, show progress, and tell who may use them."""

import json
import logging
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Literal

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

Row = Sequence[object]
EXAMPLES = "examples:"
INTERRUPTED = 130  # what shells give to a program that Ctrl-C has ended
NOBODY_READS = 141  # and to one whose output nobody reads any more, as behind `| head -1`


class _Formatter(DjangoHelpFormatter):
    """Django's order of options, and examples line by line as they were written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLES) else super()._fill_text(text, width, indent)


def printable(text: str) -> str:
    """What clients and callers named must not command the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class ImgoCommand(BaseCommand):
    """A command whose mistakes are one line: exit status 1 for those, 2 for wrong usage.

    Subclasses say what they do in `run`, which may raise an `ImgoError` or a database's error.
    """

    # Servers run them: what they warn of is not for every push of a script.
    requires_system_checks: list[str] | tuple[str, ...] | Literal["__all__"] = ()

    examples: ClassVar[Sequence[str]] = ()  # lines without "manage.py", shown by --help
    data: ClassVar[Sequence[str]] = ()  # an example of each kind of JSON that --json prints

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Django's, with the examples."""
        if self.examples:
            lines = (f"  manage.py {subcommand} {line}".rstrip() for line in self.examples)
            kwargs["epilog"] = "\n".join((EXAMPLES, *lines))
        return super().create_parser(prog_name, subcommand, formatter_class=_Formatter, **kwargs)

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Run, and turn what a user can do something about into a message."""
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
        """Do it."""
        raise NotImplementedError

    def print_json(self, data: object) -> None:
        """Print data for programs."""
        self.stdout.write(json.dumps(data, cls=DjangoJSONEncoder, indent=2, ensure_ascii=False))

    def print_table(self, header: Row, rows: Iterable[Row]) -> None:
        """Print columns that are as wide as what is in them."""
        lines = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())


class Faults(logging.Filter):
    """Keeps what libraries log of a database that is away, for the one line that a command says.

    The pool logs each of its attempts, and raises nothing but that there was no connection. A
    server logs as always.
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
        """No record passes."""
        if record.name == "psycopg.pool":
            self._last = record.getMessage()
        return False

    def tell(self, error: DatabaseError) -> str:
        """A line about an error of the database."""
        # Postgres and SQLite do not agree on the kind of this one.
        if isinstance(error, ProgrammingError) or "no such table" in str(error):
            return f"The database is not up to date ({error}): run 'manage.py migrate' first."
        return f"The database cannot be reached.{self.reason(error)}"

    def reason(self, error: BaseException | None) -> str:
        """What the database's library says of it, to be put behind a sentence."""
        if not isinstance(error, DatabaseError):
            return ""
        text = self._last.rpartition("connection failed: ")[2] or str(error)
        return f" {' '.join(text.split())}"


def leave_pipe() -> None:
    """Have Python not complain at its end that nobody reads the rest of what is printed."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_json(parser: ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print data instead of text")


class Steps:
    """How far a piece of work is."""

    def __init__(self, progress: Progress, title: str, total: float) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total)

    def at(self, done: float) -> None:
        """So much of the total is done."""
        self._progress.update(self._task, completed=done)

    def advance(self, count: float) -> None:
        """So much more is done."""
        self._progress.advance(self._task, count)


@contextmanager
def progress_bar(title: str, total: float) -> Iterator[Steps]:
    """A bar on stderr while a person watches it; nothing when it goes to a file or a pipe."""
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
        yield Steps(progress, title, total)
