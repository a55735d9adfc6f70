"""pytest plugin: the fixture `imgo_pushes` for projects with `imgo_client.django`.

pytest loads it wherever the package is installed, so it imports no Django by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from imgo_client.django.testing import Pushes


@pytest.fixture
def imgo_pushes(request: pytest.FixtureRequest) -> Pushes:
    """Return the pushes that the test has made so far, as a list. It needs pytest-django."""
    if "transactional_db" not in request.fixturenames:
        request.getfixturevalue("db")
    from imgo_client.django.testing import Pushes

    return Pushes()
