"""Types of the requests about devices, and of what a push shows on them."""

from typing import Annotated, Any

from msgspec import Struct

from push.api.hints import NO_CONTROL, schema_hints
from push.devices.addresses import ENDPOINT_MAX, Address, address_of
from push.devices.content import Notify
from push.devices.tables import NAME_MAX, ProviderName

TEXT = {"pattern": NO_CONTROL}


class NotifyRequest(Struct, forbid_unknown_fields=True):
    """What devices show. All of it has at most 3,500 bytes as JSON."""

    title: Annotated[str, schema_hints("The first line.", minLength=1, **TEXT)]
    body: Annotated[str, schema_hints("The text below it.")] = ""
    url: Annotated[
        str, schema_hints("What a click opens: a path such as /orders/7, or a URL.", **TEXT)
    ] = ""
    icon: Annotated[str, schema_hints("Path or URL of an image.", **TEXT)] = ""
    tag: Annotated[
        str, schema_hints("A notification replaces the one that is shown with its tag.", **TEXT)
    ] = ""
    data: Annotated[dict[str, Any], schema_hints("For the app.")] | None = None

    def as_notify(self) -> Notify:
        """Return the checked content. Raises `BadRequest` or `TooLarge`."""
        return Notify(self.title, self.body, self.url, self.icon, self.tag, self.data)


class SubscriptionKeys(Struct):
    """Keys of a Web Push subscription, in base64url."""

    p256dh: str
    auth: str


class Subscription(Struct):
    """Web Push subscription, as `PushSubscription.toJSON()` gives it."""

    endpoint: Annotated[str, schema_hints("See WEBPUSH_HOSTS.", maxLength=ENDPOINT_MAX)]
    keys: SubscriptionKeys

    def as_dict(self) -> dict[str, Any]:
        """Return the members for `address_of`."""
        keys = {"p256dh": self.keys.p256dh, "auth": self.keys.auth}
        return {"endpoint": self.endpoint, "keys": keys}


class DeviceRequest(Struct, forbid_unknown_fields=True):
    """A device to register: `subscription` for Web Push, `token` for the others."""

    provider: Annotated[str, schema_hints(enum=list(ProviderName.values))]
    subscription: Subscription | None = None
    token: Annotated[str, schema_hints("Device token of APNs or FCM.")] | None = None
    name: Annotated[
        str, schema_hints("For people, such as Ann's phone.", maxLength=NAME_MAX, **TEXT)
    ] = ""

    def as_address(self) -> Address:
        """Return the checked address. Raises `BadRequest`."""
        if self.subscription is None:
            return address_of(self.provider, None, self.token)
        return address_of(self.provider, self.subscription.as_dict(), self.token)


class OwnDeviceRequest(DeviceRequest, forbid_unknown_fields=True):
    """A client's own device.

    `replaces`: the subscription that the browser had before, which proves whose device it is.
    """

    replaces: Subscription | None = None

    def as_replaced(self) -> Address | None:
        """Return the address of the former subscription, None without one. Raises `BadRequest`."""
        if self.replaces is None:
            return None
        return address_of(self.provider, self.replaces.as_dict(), None)
