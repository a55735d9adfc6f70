"""Registration of a page's or an app's own device, with its token or its own site's cookie."""

from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse

from accounts.auth_body import AuthBody
from imgo_site.conf import conf
from imgo_site.errors import NotAuthenticated, NotFound, Unavailable
from push.api.device_requests import OwnDeviceRequest
from push.api.schemas import read, utf8
from push.connect.events_request import token_of_query
from push.devices import registration
from push.devices.addresses import Address, shortened
from push.devices.tables import Device
from push.events.verification import key_of_client
from push.events.views import ClientView
from push.status.instance import instance_of

NO_STORE = {"Cache-Control": "no-store"}


class DevicesView(ClientView):
    """The devices of a client: their registration, and what a browser needs for it."""

    body_setting = "MAX_FORM"

    def get(self, request: HttpRequest) -> HttpResponse:  # noqa: ARG002
        """Return the public key that a browser subscribes with. It is no secret."""
        if not conf.WEBPUSH_PRIVATE_KEY:
            raise NotFound("This server sends no Web Push: WEBPUSH_PRIVATE_KEY is not set.")
        # pyjwt[crypto] brings what reads the key. Most processes never need it.
        from push.devices.providers.vapid import public_key_of, read_private_key

        key = public_key_of(read_private_key(conf.WEBPUSH_PRIVATE_KEY))
        return JsonResponse({"webpush": {"public_key": key}}, headers=NO_STORE)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Register the device of a client under the client's key.

        A service worker has no token. The subscription that the new one replaces takes its place.
        """
        fields = read(utf8(request.body), OwnDeviceRequest)
        address, replaced = fields.as_address(), fields.as_replaced()
        try:
            if replaced is None:
                device = self._register(request, address, fields.name)
            else:
                device = self._replace(request, replaced, address)
        except DatabaseError:
            raise Unavailable("The device cannot be registered now.") from None
        answer = {"id": str(device.pk), "address": shortened(device.provider, device.address)}
        return JsonResponse(answer, status=201, headers=NO_STORE)

    def _register(self, request: HttpRequest, address: Address, name: str) -> Device:
        query = request.META.get("QUERY_STRING", "").encode("latin1")
        token = token_of_query(query, self.facts.headers)
        body = AuthBody(token=token, names=True, raw=token.encode("utf-8", "surrogateescape"))
        key = key_of_client(body, self.facts, instance_of(request))
        return registration.register(key, address, name)

    def _replace(self, request: HttpRequest, replaced: Address, address: Address) -> Device:
        guard = instance_of(request).guard
        guard.admit_at_once(self.facts.address)
        device = registration.replace(replaced, address)
        if device is None:
            guard.failed(self.facts.address)
            raise NotAuthenticated("No device has the subscription that is to be replaced.")
        return device
