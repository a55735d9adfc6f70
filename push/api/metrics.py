"""`GET /metrics`: this process's metrics in Prometheus's text format."""

from typing import ClassVar

from django.http import HttpResponse
from rest_framework.request import Request

from push.api.base import ApiView
from push.status import metrics_page
from push.status.instance import instance_of


class MetricsView(ApiView):
    """Metrics of this process, for an API key with the scope `read`."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> HttpResponse:
        """Return Prometheus's text format, whatever Accept requests."""
        instance_of(request).vitals.refresh_metrics()
        return HttpResponse(metrics_page.text(), content_type=metrics_page.CONTENT_TYPE)
