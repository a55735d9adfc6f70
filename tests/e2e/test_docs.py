"""Every command and snippet of the documentation does what its page says."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

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


@pytest.fixture(scope="module")
def plain(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """For the pages that need no settings of their own."""
    with make_embedded() as system:
        yield system


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    if not block.verb:
        assert block.language in READERS, f"{block}: run it, or say why it is not run"
        READERS[block.language](block.text)
        return
    assert block.verb in KNOWN, f"{block}: {block.verb!r} is no mark"
    if block.verb in {"not run", "server"}:
        assert len(block.rest.split()) > 3, f"{block}: say why"
    if block.verb in RUN:
        assert block.language in {"sh", "python", "js"}


@pytest.mark.parametrize("page", WITH_RUNS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(
    page: Path,
    tmp_path: Path,
    plain: System,
    make_embedded: Callable[..., Embedded],
) -> None:
    found = blocks(page)
    is_own = any(block.verb in {"settings", "file"} for block in found)
    system = make_embedded() if is_own else plain
    with Rehearsal(tmp_path, system) as rehearsal:
        rehearsal.prepare(found)
        for block in found:
            if block.verb in ACTED:
                rehearsal.do(block)
