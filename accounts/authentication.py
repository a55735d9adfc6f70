"""DRF authentication: an API key in a header, in the query, or a trusted legacy network."""

import hmac
from dataclasses import dataclass

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.models import SCOPES, ApiKey
from imgo_site.addresses import in_networks, is_proxy
from imgo_site.conf import conf
from imgo_site.errors import NotAuthenticated
from imgo_site.origins import is_foreign_page

SCHEME = "Api-Key"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls the API: a name for records, and the scopes it has."""

    name: str
    scopes: frozenset[str]
    is_authenticated: bool = True


def caller(request: Request) -> Caller:
    """Who made a request that `HasScope` let through."""
    found: object = request.user
    assert isinstance(found, Caller)
    return found


def caller_of(text: str) -> Caller:
    """The caller whose API key is `text`; raises `NotAuthenticated`."""
    if conf.API_KEY and hmac.compare_digest(text.encode(), conf.API_KEY.encode()):
        return Caller("IMGO_API_KEY", frozenset(SCOPES))
    if text and (row := ApiKey.objects.active(text)):
        return Caller(f"apikey:{row.pk}", frozenset(row.scopes))
    raise NotAuthenticated("This API key is not valid, or was revoked.")


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Api-Key <key>`, or `?apikey=<key>` for old tools."""

    def authenticate(self, request: Request) -> tuple[Caller, str] | None:
        """The caller, or None when the request names no key. Raises `NotAuthenticated`."""
        header = request.headers.get("Authorization", "")
        scheme, _, text = header.partition(" ")
        in_query = request.query_params.get("apikey", "")
        if scheme.lower() == SCHEME.lower():
            return caller_of(text.strip()), SCHEME
        if text := in_query:
            return caller_of(text), SCHEME
        return None

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 - DRF's signature
        """What a 401 asks for."""
        return SCHEME


class LegacyAuthentication(ApiKeyAuthentication):
    """On imgo's own paths: the same, or an address in `LEGACY_TRUSTED_NETWORKS`.

    Never that of a proxy itself, which does not tell who calls, and never for a page of another
    site, which any browser in that network may have open.
    """

    def authenticate(self, request: Request) -> tuple[Caller, str] | None:
        """The caller, or None. Raises `NotAuthenticated` when a key is named and wrong."""
        if found := super().authenticate(request):
            return found
        address = request.META.get("REMOTE_ADDR", "")
        networks = conf.LEGACY_TRUSTED_NETWORKS
        is_trusted = networks and in_networks(address, networks) and not is_proxy(address)
        if is_trusted and not is_foreign_page(request.headers, request.scheme or "http"):
            return Caller(f"network:{address}", frozenset(SCOPES)), SCHEME
        return None
