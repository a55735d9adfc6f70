"""What others in a room may see of a key, as it is checked before it is stored."""

import pytest

from accounts.models import check_info
from imgo_site.errors import BadRequest


@pytest.mark.parametrize("info", [{"a": ["\0"]}, {"\0": 1}, {"a": "\\\0"}])
def test_character_that_postgres_cannot_store_is_refused(info):
    with pytest.raises(BadRequest, match=r"U\+0000"):
        check_info(info)


def test_text_that_only_looks_like_its_escape_is_taken():
    check_info({"a": "\\u0000", "b": "\\\\u0000"})
