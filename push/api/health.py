"""`/healthz` and `/readyz`: probes for liveness and readiness of this process."""

from rest_framework.request import Request
from rest_framework.response import Response

from push.api.answers import Health
from push.api.base import ApiView
from push.status.instance import instance_of


class HealthView(ApiView):
    """Probe for load balancers that send clients here. It needs no API key and no database."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> Response:
        """Return 200 while this process lives; in a node, once all its ports listen.

        Draining does not change the status code.
        """
        health = instance_of(request).health
        body: Health = {"status": health.state.value}
        return Response(body, status=200 if health.is_alive else 503)


class ReadyView(ApiView):
    """Probe for load balancers that send pushes here. It needs no API key."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> Response:
        """Return 200 while this process can do its job, also if a check reports `degraded`."""
        is_ready, report = instance_of(request).vitals.report()
        return Response(report, status=200 if is_ready else 503)
