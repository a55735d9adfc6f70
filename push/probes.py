"""Middleware that answers the probes and metrics by any Host, on threads of their own.

Orchestrators and Prometheus ask by IP address, and a Host that is not in ALLOWED_HOSTS is refused
by Django. What these paths answer does not depend on the Host, so they need no such check. On a
node they do not wait for the threads of other requests either.
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
    """Answers `PATHS` before any other middleware sees them; passes everything else on."""

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
        """Answer a request."""
        if request.path_info in PATHS and is_valid_path(request.path_info):
            return self._answer_beside(request) if self.is_async else self._answer(request)
        return self.get_response(request)

    @staticmethod
    def _answer(request: HttpRequest) -> HttpResponseBase:
        match = request.resolver_match = resolve(request.path_info)
        found: Any = match.func(request, *match.args, **match.kwargs)
        if hasattr(found, "render"):
            found = found.render()
        answer: HttpResponseBase = found
        if not answer.streaming:
            # Django's middleware for that is behind this one.
            answer["Content-Length"] = str(len(found.content))
        return answer

    def _answer_and_close(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return self._answer(request)
        finally:
            close_old_connections()  # Django closes those of its own threads only
