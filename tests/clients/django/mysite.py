"""The project of the page "Beside your Django project", made and started as the page says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests import NO_TLS, wait_until
from tests.e2e.harness import HOST, System
from tests.e2e.pages import BESIDE, blocks
from tests.e2e.rehearsal import Rehearsal


@contextmanager
def running(home: Path, system: System) -> Iterator[str]:
    """Do all blocks of the page in order; give the address of the project, which then runs.

    `home`: an empty directory. `system`: an installation that is not started yet.
    """
    with Rehearsal(home, system, beside=True) as rehearsal:
        found = blocks(BESIDE)
        rehearsal.prepare(found)
        for block in found:
            if block.verb not in {"settings", "not run"}:
                rehearsal.do(block)
        url = f"http://{HOST}:{rehearsal.site_port}"
        wait_until(lambda: _serves(url))
        yield url


def _serves(url: str) -> bool:
    """Return whether the project answers; the page is for users only."""
    try:
        return httpx.get(url, trust_env=False, verify=NO_TLS).status_code == 302
    except httpx.TransportError:
        return False
