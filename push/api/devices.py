"""Views of the devices of a key."""

from typing import ClassVar

from django.db.models import Count
from rest_framework.request import Request
from rest_framework.response import Response

from imgo_site.names import INT64_MAX, check_name, check_number
from push.api.answers import Deleted, DevicePage, DeviceRow
from push.api.base import V1View
from push.api.device_requests import DeviceRequest
from push.api.paging import NAMES, window_of
from push.api.schemas import read, utf8
from push.api.v1 import body_of
from push.devices import registration
from push.devices.addresses import shortened
from push.devices.tables import Device


def device_json(device: Device) -> DeviceRow:
    """Return a device as the API shows it: the address is shortened."""
    return {
        "id": str(device.pk),
        "provider": device.provider,
        "address": shortened(device.provider, device.address),
        "name": device.name,
        "created_at": device.created_at,
        "last_seen": device.last_seen,
        "failures": device.failures,
    }


class DevicesView(V1View):
    """Devices of one key, which get notifications of what it has not settled."""

    scopes: ClassVar = {"GET": "devices", "POST": "devices", "DELETE": "devices"}
    query_names: ClassVar = {"GET": NAMES, "DELETE": ("device",)}

    def get(self, request: Request, key: str) -> Response:
        """Return one page of the key's devices, the most recently registered first."""
        rows = registration.devices_of(check_name(key, "key"))
        page: DevicePage = {
            "count": rows.aggregate(count=Count("pk"))["count"],
            "results": [device_json(row) for row in rows[window_of(request)]],
        }
        return Response(page)

    def post(self, request: Request, key: str) -> Response:
        """Register a device of the key, or renew it."""
        fields = read(utf8(body_of(request)), DeviceRequest)
        device = registration.register(key, fields.as_address(), fields.name)
        return Response(device_json(device), status=201)

    def delete(self, request: Request, key: str) -> Response:
        """Delete all devices of the key, or with `?device=` one of them."""
        check_name(key, "key")
        number = request.query_params.get("device")
        device_id = None
        if number is not None:
            device_id = check_number(number, "device", lowest=1, highest=INT64_MAX)
        deleted: Deleted = {"deleted": registration.remove(key, device_id)}
        return Response(deleted)
