"""Cross-origin access to Server-Sent Events, by `CORS_ORIGINS`.

A page of another origin needs the server's permission to read an answer. A token identifies its
client, never a cookie: pages of `CSRF_TRUSTED_ORIGINS` count as our own, and may send theirs.
"""

from collections.abc import Mapping

from imgo_site.browser_requests import is_own_origin
from imgo_site.conf import conf

ANY = "*"
PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Cache-Control, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "7200",  # seconds; browsers allow no more
}


def is_allowed(headers: Mapping[str, str], scheme: str) -> bool:
    """Return whether the page that sent a request may read the answer.

    `headers`: with names in lower case. A request without an Origin is not of another origin.
    """
    origin = headers.get("origin", "")
    if not origin or ANY in conf.CORS_ORIGINS or origin in conf.CORS_ORIGINS:
        return True
    return is_own_origin(headers, scheme)


def cors_headers(headers: Mapping[str, str], scheme: str) -> dict[str, str]:
    """Return the headers of an answer that let the page of a request read it."""
    answer_headers = {"Vary": "Origin"}
    origin = headers.get("origin", "")
    if origin and is_allowed(headers, scheme):
        answer_headers["Access-Control-Allow-Origin"] = origin
        answer_headers["Access-Control-Expose-Headers"] = "Retry-After"
        if is_own_origin(headers, scheme):  # of CSRF_TRUSTED_ORIGINS: its cookie is accepted
            answer_headers["Access-Control-Allow-Credentials"] = "true"
    return answer_headers


def refusal_of(headers: Mapping[str, str], scheme: str) -> str:
    """Return why a page's request is refused, "" if it is not.

    Behind a proxy this server may not know its own origin. So only a request counts that the
    browser itself calls one of another origin.
    """
    is_foreign = headers.get("sec-fetch-site", "") in ("cross-site", "same-site")
    if is_foreign and not is_allowed(headers, scheme):
        return f"Pages of {headers['origin'][:200]!r} have no access: add it to CORS_ORIGINS."
    return ""
