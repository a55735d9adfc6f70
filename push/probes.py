"""Middleware that answers probes and metrics under any Host, on threads of their own.

Orchestrators and Prometheus send requests to an IP address. Django refuses a Host that is not in
ALLOWED_HOSTS. The answers on these paths do not depend on the Host, so they need no such check. On
a node they do not wait for the threads of other requests.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.db import close_old_connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import is_valid_path, resolve

PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
THREADS = 4  # probes and scrapes at the same time


class Probes:
    """Middleware that answers `PATHS` before other middleware, and passes all other requests on."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
            threads = ThreadPoolExecutor(THREADS, thread_name_prefix="imgo-probe")
            self._answer_beside = sync_to_async(
                self._answer_and_close, thread_sensitive=False, executor=threads
            )

    def __call__(self, request: HttpRequest) -> Any:
        """Return the answer to a request; a coroutine if `get_response` is asynchronous."""
        if request.path_info in PATHS and is_valid_path(request.path_info):
            return self._answer_beside(request) if self.is_async else self._answer(request)
        return self.get_response(request)

    @staticmethod
    def _answer(request: HttpRequest) -> HttpResponseBase:
        match = request.resolver_match = resolve(request.path_info)
        response: Any = match.func(request, *match.args, **match.kwargs)
        if hasattr(response, "render"):
            response = response.render()
        answer: HttpResponseBase = response
        if not answer.streaming:
            # Django's middleware that sets the length comes after this one.
            answer["Content-Length"] = str(len(response.content))
        return answer

    def _answer_and_close(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return self._answer(request)
        finally:
            close_old_connections()  # Django closes only those of its own threads
