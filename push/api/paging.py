"""Pages of rows in the answers of the API."""

from rest_framework.request import Request

from imgo_site.names import check_number

NAMES = ("limit", "offset")  # of a page's query parameters
PAGE_MAX = 1000  # rows of one page
OFFSET_MAX = 10**9  # rows before the page


def window_of(request: Request, lowest: int = 1) -> slice:
    """Return the rows that `?limit=` (default 100) and `?offset=` (default 0) request.

    `lowest`: of `limit`; 0 for pages that also tell a count without rows.

    Raises `BadRequest`.
    """
    query = request.query_params
    limit = check_number(query.get("limit", "100"), "limit", lowest=lowest, highest=PAGE_MAX)
    offset = check_number(query.get("offset", "0"), "offset", lowest=0, highest=OFFSET_MAX)
    return slice(offset, offset + limit)
