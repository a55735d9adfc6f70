"""DRF permission: the caller has the scope that the view names for the method."""

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.authentication import Caller
from imgo_site.errors import Forbidden, NotAuthenticated

if TYPE_CHECKING:  # DRF's views import this module
    from rest_framework.views import APIView


class HasScope(BasePermission):
    """A view says `scopes = {"POST": "push"}`; a method that is not named is refused."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """True, or raises `NotAuthenticated` or `Forbidden` with what is missing."""
        method = request.method or ""
        if method == "OPTIONS" or not hasattr(view, method.lower()):
            return True  # behind this: the names of the methods, or 405
        scope = getattr(view, "scopes", {}).get("GET" if method == "HEAD" else method)
        if scope is None:
            return False
        caller = request.user
        if not isinstance(caller, Caller):
            raise NotAuthenticated(
                "An API key is needed: send the header 'Authorization: Api-Key <key>'."
            )
        if scope not in caller.scopes:
            raise Forbidden(f"This API key lacks the scope {scope!r}.")
        return True
