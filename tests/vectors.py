"""docs/frames.json: frames as bytes or text and their fields, for all tests that read it."""

import json
from pathlib import Path

import pytest

VECTORS = json.loads((Path(__file__).parents[1] / "docs/frames.json").read_text())
MAX = VECTORS["max_client_body"]  # bytes


def each(part: str) -> pytest.MarkDecorator:
    """A test for each vector of a part."""
    return pytest.mark.parametrize("vector", VECTORS[part], ids=lambda vector: vector["name"])
