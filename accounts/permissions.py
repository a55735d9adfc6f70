"""DRF permission: the caller must have the scope that the view requires for the method."""

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.authentication import Caller
from imgo_site.errors import Forbidden, NotAuthenticated

if TYPE_CHECKING:  # DRF's views import this module
    from rest_framework.views import APIView


class HasScope(BasePermission):
    """Permission by scope, from a view's `scopes = {"POST": "push"}`. Other methods are refused.

    A view whose object decides besides names several scopes, of which one is enough.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Return True if the caller has the scope of the method, False if the method has none.

        Raises `NotAuthenticated` without an API key, `Forbidden` without the scope.
        """
        method = request.method or ""
        if method == "OPTIONS" or not hasattr(view, method.lower()):
            return True  # the view answers with the names of the methods, or with 405
        scope = getattr(view, "scopes", {}).get("GET" if method == "HEAD" else method)
        if scope is None:
            return False
        caller = request.user
        if not isinstance(caller, Caller):
            raise NotAuthenticated(
                "An API key is needed: send the header 'Authorization: Api-Key <key>'."
            )
        scopes = (scope,) if isinstance(scope, str) else scope
        if caller.scopes.isdisjoint(scopes):
            names = " or ".join(map(repr, scopes))
            raise Forbidden(f"This API key lacks the scope {names}.")
        return True
