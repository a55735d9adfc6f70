"""Every command and snippet of the documentation does what its page says."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from _pytest.mark.structures import ParameterSet

from .harness import ROOT, Embedded, System
from .pages import BESIDE, Block, blocks, pages
from .rehearsal import Rehearsal

RUN = {"run", "run in django", "start"}
ACTED = {*RUN, "prints", "server"}
KNOWN = {*ACTED, "file", "append", "settings", "not run"}
# Languages that nobody runs, and how it is seen that they are what they say.
READERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "yaml": yaml.safe_load,
    "text": str,
}
ALL = [block for page in pages() for block in blocks(page)]
# tests/clients/django/test_howto.py runs the other one.
WITH_RUNS = sorted({block.page for block in ALL if block.verb in RUN} - {BESIDE})
# What these do, other tests do by themselves, mostly those of tests/examples and tests/clients.
LONG = {
    "docs/api.md",
    "docs/tutorial.md",
    "docs/clients/python.md",
    "docs/examples.md",
    "docs/howto/authenticate.md",
    "docs/howto/online.md",
    "docs/howto/presence.md",
    "docs/howto/upstream.md",
    "docs/howto/move.md",
    "docs/howto/push-from-django.md",
    "docs/howto/catch-up.md",
    "docs/clients/javascript.md",
    "docs/howto/publish.md",
    "docs/howto/rooms.md",
}


def page_parameter(page: Path) -> ParameterSet:
    name = str(page.relative_to(ROOT))
    return pytest.param(page, id=name, marks=[pytest.mark.long] if name in LONG else [])


@pytest.fixture(scope="module")
def plain(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """For the pages that need no settings of their own."""
    with make_embedded() as system:
        yield system


def test_each_block_is_run_or_says_why_not() -> None:
    for block in ALL:
        check_verb(block)


def check_verb(block: Block) -> None:
    if not block.verb:
        assert block.language in READERS, f"{block}: run it, or say why it is not run"
        READERS[block.language](block.text)
        return
    assert block.verb in KNOWN, f"{block}: {block.verb!r} is no mark"
    if block.verb in {"not run", "server"}:
        assert len(block.rest.split()) > 3, f"{block}: say why"
    if block.verb in RUN:
        assert block.language in {"sh", "python", "js"}


@pytest.mark.parametrize("page", [page_parameter(page) for page in WITH_RUNS])
def test_a_page_does_what_it_says(
    page: Path,
    tmp_path: Path,
    plain: System,
    make_embedded: Callable[..., Embedded],
) -> None:
    page_blocks = blocks(page)
    is_own = any(block.verb in {"settings", "file"} for block in page_blocks)
    system = make_embedded() if is_own else plain
    with Rehearsal(tmp_path, system) as rehearsal:
        rehearsal.prepare(page_blocks)
        for block in page_blocks:
            if block.verb in ACTED:
                rehearsal.do(block)
