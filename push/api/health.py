"""`/healthz` and `/readyz`: whether this process serves, and whether it can do its job."""

from rest_framework.request import Request
from rest_framework.response import Response

from push.api.answers import Health
from push.api.base import ApiView
from push.status import health, vitals


class HealthView(ApiView):
    """For who decides whether to send clients here. No key, no database."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> Response:  # noqa: ARG002
        """200 while this process lives: in a node, once everything listens, drained or not."""
        found: Health = {"status": health.current().value}
        return Response(found, status=200 if health.is_alive() else 503)


class ReadyView(ApiView):
    """For who decides whether to send pushes here. No key."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> Response:  # noqa: ARG002
        """200 while this process can do its job; `degraded` says what is slower than it is."""
        is_ready, found = vitals.report()
        return Response(found, status=200 if is_ready else 503)
