"""Authorization of a request by its view, before the body is read."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.http import HttpResponseBase
from django.urls import ResolverMatch
from rest_framework.views import APIView

from imgo_site.errors import Unavailable
from imgo_site.middleware import set_client_addresses
from imgo_site.request_limits import view_class
from push.api.problems import error_response_at

logger = logging.getLogger(__name__)

THREADS = 2  # each uses one database connection during an authorization
PATIENCE = 5.0  # seconds for the database to answer

Decided = Callable[[HttpResponseBase | None], None]


class EarlyAuthorization:
    """Runner of views' authentication and permissions, on threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "imgo-body-gate")
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    def guards(match: ResolverMatch | None) -> bool:
        """Return whether the view is one of the API's, which define the scopes that they need."""
        view = view_class(match) if match is not None else None
        return view is not None and issubclass(view, APIView) and hasattr(view, "scopes")

    def ask(
        self,
        match: ResolverMatch | None,
        request: Any,
        method: bytes,
        target: bytes,
        decided: Decided,
    ) -> None:
        """Authorize a request; call `decided` with the refusing response, or with None if allowed.

        `request`: a `NodeRequest` whose headers are complete.
        """
        assert match is not None
        scope = request.http_scope(method, target)
        task = asyncio.get_running_loop().create_task(self._authorize(match, scope, decided))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _authorize(
        self, match: ResolverMatch, scope: dict[str, Any], decided: Decided
    ) -> None:
        loop = asyncio.get_running_loop()
        answer: HttpResponseBase | None
        try:
            refusal = loop.run_in_executor(self._threads, _refusal, match, scope)
            answer = await asyncio.wait_for(refusal, PATIENCE)
        except TimeoutError:
            answer = error_response_at(scope["path"], Unavailable("The database does not answer."))
        except Exception:
            logger.exception("a caller could not be authenticated before its body was read")
            answer = error_response_at(
                scope["path"], Unavailable("The API key cannot be checked now.")
            )
        decided(answer)

    def close(self) -> None:
        """End the threads, without waiting for authorizations under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _refusal(match: ResolverMatch, scope: dict[str, Any]) -> HttpResponseBase | None:
    """Return the view's response to a caller that it refuses; None if the caller is allowed."""
    try:
        plain = ASGIRequest(scope, BytesIO())
        set_client_addresses(plain)
        kind = view_class(match)
        assert kind is not None
        assert issubclass(kind, APIView)
        view = kind()
        view.setup(plain, *match.args, **match.kwargs)
        view.request = request = view.initialize_request(plain, *match.args, **match.kwargs)
        view.headers = view.default_response_headers
        try:
            view.initial(request, *match.args, **match.kwargs)
        except Exception as error:  # noqa: BLE001 - the view knows which are the caller's
            return view.handle_exception(error)
        return None
    finally:
        connection.close()
