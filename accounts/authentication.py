"""DRF authentication: by an API key in a header or the query, or by a trusted legacy network."""

import hmac
from dataclasses import dataclass

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.models import SCOPES, ApiKey
from imgo_site.addresses import in_networks, is_proxy
from imgo_site.browser_requests import is_foreign_page
from imgo_site.conf import conf
from imgo_site.errors import NotAuthenticated

SCHEME = "Api-Key"
QUERY_PARAMETER = "apikey"  # for tools that cannot set a header


@dataclass(frozen=True, slots=True)
class Caller:
    """Caller of the API: its name for records, and its scopes."""

    name: str
    scopes: frozenset[str]
    is_authenticated: bool = True


def caller(request: Request) -> Caller:
    """Return the caller of a request that `HasScope` has permitted."""
    user: object = request.user
    assert isinstance(user, Caller)
    return user


def caller_of(text: str) -> Caller:
    """Return the caller whose API key is `text`.

    Raises `NotAuthenticated` if there is no such key, or if it was revoked.
    """
    if conf.API_KEY and hmac.compare_digest(text.encode(), conf.API_KEY.encode()):
        return Caller("IMGO_API_KEY", frozenset(SCOPES))
    if text and (row := ApiKey.objects.active(text)):
        return Caller(f"apikey:{row.pk}", frozenset(row.scopes))
    raise NotAuthenticated("This API key is not valid, or was revoked.")


class ApiKeyAuthentication(BaseAuthentication):
    """Authentication by `Authorization: Api-Key <key>`, or by `?apikey=<key>` for old tools."""

    def authenticate(self, request: Request) -> tuple[Caller, str] | None:
        """Return the caller and the scheme, or None if the request has no API key.

        Raises `NotAuthenticated` if the key is wrong.
        """
        header = request.headers.get("Authorization", "")
        scheme, _, text = header.partition(" ")
        in_query = request.query_params.get(QUERY_PARAMETER, "")
        if scheme.lower() == SCHEME.lower():
            return caller_of(text.strip()), SCHEME
        if text := in_query:
            return caller_of(text), SCHEME
        return None

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 - DRF's signature
        """Return the value of `WWW-Authenticate` in a 401."""
        return SCHEME


class LegacyAuthentication(ApiKeyAuthentication):
    """Authentication on imgo's own paths: also by an address in `LEGACY_TRUSTED_NETWORKS`.

    A proxy's own address does not count, as it does not identify the caller. Requests from another
    site's page do not count either: any browser in that network may have it open.
    """

    def authenticate(self, request: Request) -> tuple[Caller, str] | None:
        """Return the caller and the scheme, or None if neither key nor address identifies it.

        Raises `NotAuthenticated` if the key is wrong.
        """
        if by_key := super().authenticate(request):
            return by_key
        address = request.META.get("REMOTE_ADDR", "")
        networks = conf.LEGACY_TRUSTED_NETWORKS
        is_trusted = networks and in_networks(address, networks) and not is_proxy(address)
        if is_trusted and not is_foreign_page(request.headers, request.scheme or "http"):
            return Caller(f"network:{address}", frozenset(SCOPES)), SCHEME
        return None
