"""Content of a notification, valid by construction."""

import json
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from imgo_site.conf import conf
from imgo_site.errors import BadRequest, TooLarge
from imgo_site.names import has_control_characters
from push.devices.addresses import configured

# Bytes of the JSON. Web Push carries 3,993 bytes, APNs and FCM 4,096; the rest is for our members.
CONTENT_MAX = 3_500
DEPTH_MAX = 100  # levels of `data`; Python's encoders and decoders fail at about a thousand
# A path of the page's own site, or a URL of any scheme with an authority, such as an app's.
_URL = re.compile(r"/(?!/)\S*|[A-Za-z][A-Za-z0-9+.-]*://\S+")
_ONE_LINE = ("title", "url", "icon", "tag")


@dataclass(frozen=True, slots=True)
class Notify:
    """What a device shows.

    `title`: not empty. `body`: text below it. `url`: opened by a click, a path such as
    `/orders/7` or an absolute URL. `icon`: URL of an image. `tag`: a notification with the same
    tag replaces the one that is shown. `data`: a JSON object for the app. "" and None: none.

    Raises `BadRequest`, or `TooLarge` above `CONTENT_MAX` bytes of JSON.
    """

    title: str
    body: str = ""
    url: str = ""
    icon: str = ""
    tag: str = ""
    data: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("title", "body", "url", "icon", "tag"):
            if not isinstance(getattr(self, name), str):
                raise BadRequest(f"notify.{name} must be a text.")
        if not self.title:
            raise BadRequest("notify.title is empty: a notification needs a title.")
        for name in _ONE_LINE:
            if has_control_characters(getattr(self, name)):
                raise BadRequest(f"notify.{name} must not contain control characters.")
        for name in ("url", "icon"):
            value = getattr(self, name)
            if value and not _URL.fullmatch(value):
                raise BadRequest(
                    f"notify.{name} must be a path such as /orders/7, or a URL such as "
                    f"https://shop.example.com/orders/7, not {value[:60]!r}."
                )
        _check_data(self.data)
        size = len(self.text.encode("utf-8", "surrogatepass"))
        if size > CONTENT_MAX:
            raise TooLarge(f"notify has at most {CONTENT_MAX} bytes as JSON; this one {size}.")

    @property
    def text(self) -> str:
        """Return the JSON, without members that are empty. Raises `BadRequest`."""
        members = {name: value for name, value in asdict(self).items() if value}
        try:
            text = json.dumps(members, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            text.encode()
        except UnicodeEncodeError:
            raise BadRequest("notify has half of a surrogate pair, which is no text.") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise BadRequest(f"notify.data cannot be written as JSON: {error}") from None
        if "\\u0000" in text:
            raise BadRequest("notify must not contain the character NUL.")
        return text


def _check_data(data: object) -> None:
    if data is not None and not isinstance(data, dict):
        raise BadRequest("notify.data must be a JSON object.")
    if _is_deeper(data, DEPTH_MAX):
        raise BadRequest(f"notify.data has more than {DEPTH_MAX} levels of objects and arrays.")


def _is_deeper(value: object, levels: int) -> bool:
    """Return whether objects and arrays are nested in more levels. It does not recurse."""
    level = [value]
    for _ in range(levels + 1):
        inner: dict[int, object] = {}  # by identity: a value of a Python caller may contain itself
        for parent in level:
            if isinstance(parent, dict):
                inner |= {id(child): child for child in parent.values()}
            elif isinstance(parent, list | tuple):
                inner |= {id(child): child for child in parent}
        if not inner:
            return False
        level = list(inner.values())
    return True


def notify_of(value: object) -> Notify | None:
    """Return the content for a dictionary of a Python caller, or None. Raises as `Notify`."""
    if value is None or isinstance(value, Notify):
        return value
    if not isinstance(value, dict):
        raise BadRequest("notify must be an object with a title.")
    names = Notify.__dataclass_fields__
    if unknown := [name for name in value if name not in names]:
        raise BadRequest(
            f"notify has {str(unknown[0])[:60]!r}, which is no member; there are: "
            f"{', '.join(names)}."
        )
    return Notify(**{"title": "", **value})


def check_notify(notify: Notify | None, after: object, *, is_for_keys: bool) -> None:
    """Raise `BadRequest` if a push cannot notify so.

    `after`: seconds, or None. `is_for_keys`: whether the push is stored for keys.
    """
    if notify is None:
        raise BadRequest("notify_after needs 'notify'.")
    if not is_for_keys:
        raise BadRequest("notify needs a push to keys that is stored: rooms have no devices.")
    if not configured():
        raise BadRequest(
            "notify needs a provider: set WEBPUSH_PRIVATE_KEY, APNS_KEY or FCM_CREDENTIALS."
        )
    if after is None:
        return
    if isinstance(after, bool) or not isinstance(after, int | float) or math.isnan(after):
        raise BadRequest(f"notify_after must be a number of seconds, not {after!r}.")
    if not 0 <= after <= conf.MAX_TTL:
        raise BadRequest(f"notify_after must be from 0 to {conf.MAX_TTL} seconds, not {after:g}.")
