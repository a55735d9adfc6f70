"""Schema entries of the devices of a key."""

from imgo_site.names import INT64_MAX
from push.api import answers, devices
from push.api.device_requests import DeviceRequest
from push.api.docs.examples import DEVICE, SUBSCRIPTION
from push.api.docs.operation import Content, Operation, Parameter
from push.api.docs.parameters import KEY, LARGE, LINE_END, MISTAKE, PAGE, ok

TAG = "Devices"
DEVICE_FILTER = Parameter(
    "device",
    {"type": "integer", "minimum": 1, "maximum": INT64_MAX},
    "Only the device with this id.",
    17,
)

OPERATIONS: dict[tuple[type, str], Operation] = {
    (devices.DevicesView, "GET"): Operation(
        "devices",
        TAG,
        "The devices of a key",
        ok(
            "The most recently registered first.",
            answers.DevicePage,
            one={"count": 1, "results": [DEVICE]},
        ),
        "They show the notification of a push with `notify` that the key has not settled in time.",
        (KEY, *PAGE),
        errors={400: MISTAKE, 404: LINE_END},
    ),
    (devices.DevicesView, "POST"): Operation(
        "register_device",
        TAG,
        "Register a device of a key",
        ok("Registered, or renewed.", answers.DeviceRow, 201, registered=DEVICE),
        "A device belongs to one key: registered again for another, it is that key's. Above "
        "{DEVICES_PER_KEY} devices of a key, the least recently registered one is deleted.",
        (KEY,),
        request=(
            Content(
                DeviceRequest,
                {"a browser": {"provider": "webpush", "subscription": SUBSCRIPTION}},
            ),
        ),
        errors={400: MISTAKE, 404: LINE_END, 413: LARGE},
    ),
    (devices.DevicesView, "DELETE"): Operation(
        "delete_devices",
        TAG,
        "Delete devices of a key",
        ok("They get nothing more.", answers.Deleted, one={"deleted": 1}),
        "All of them, unless `device` names one.",
        (KEY, DEVICE_FILTER),
        errors={400: MISTAKE, 404: LINE_END},
    ),
}

TYPES = (answers.DeviceRow, answers.DevicePage, answers.Deleted, DeviceRequest)
