"""The pages of the documentation as blocks of code, each with what is to be done with it.

The line above a fenced block says it, as an HTML comment, which readers do not see:

    <!-- run -->            sh, python or js: run to the end; it must succeed
    <!-- run in django -->  python, as if typed into `manage.py shell`
    <!-- start NAME -->     the same, and leave it running
    <!-- prints -->         what the last block that was run has printed; … stands for anything
    <!-- prints NAME -->    what the one of that name prints by and by
    <!-- file PATH -->      a file beside manage.py
    <!-- append PATH -->    the end of a file that a block before has made
    <!-- settings -->       `export NAME=value` lines, in place like the files from the beginning
    <!-- server: WHY -->    how to start the server; the tests start it on ports of their own
    <!-- not run: WHY -->   with the reason

A block without such a line must be of a language that is not run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .harness import ROOT

DOCS = ROOT / "docs"
BESIDE = DOCS / "howto" / "beside.md"  # its project is none of imgo's
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
ANY_FENCE = re.compile(r"^[ >]*(```|~~~)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block. `verb` and `rest` are the two halves of its mark."""

    page: Path
    line: int
    language: str
    verb: str
    rest: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """All pages of the site, and those beside it."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order. Raises ValueError for a fence that is not understood."""
    text = page.read_text()
    page_blocks = list(_blocks(page, text))
    if len(ANY_FENCE.findall(text)) != 2 * len(page_blocks):
        raise ValueError(f"{page.name}: a fence is indented, of another kind, or has no end")
    return page_blocks


def _blocks(page: Path, text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        mark = match["mark"] or ""
        verb, rest = re.fullmatch(r"(run in django|not run|\w*):? ?(.*)", mark).groups()
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match["language"], verb, rest, match["text"])
