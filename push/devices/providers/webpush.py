"""Web Push (RFC 8030): notifications to browsers."""

import json

from imgo_site.conf import conf
from imgo_site.errors import BadRequest
from push.devices.addresses import check_endpoint
from push.devices.base64url import decode_base64url
from push.devices.jobs import Job, Outcome, Result
from push.devices.providers.encryption import encrypt
from push.devices.providers.http import AddressRefused, HttpClient
from push.devices.providers.vapid import Vapid, read_private_key

TTL_MAX = 28 * 86_400  # seconds; push services keep no message for longer


class WebPush:
    """Provider for browsers."""

    name = "webpush"

    def __init__(self) -> None:
        self._http = HttpClient(is_checked=True)
        self._vapid = Vapid(read_private_key(conf.WEBPUSH_PRIVATE_KEY), conf.WEBPUSH_SUBJECT)

    async def send(self, job: Job) -> Result:
        """Send a notification once. Raises `NoAnswer`."""
        address = json.loads(job.address)
        endpoint = address["endpoint"]
        try:
            check_endpoint(endpoint)  # WEBPUSH_HOSTS may have changed since the registration
        except BadRequest:
            return Result(Outcome.REJECTED, "host_not_allowed")
        point, auth = decode_base64url(address["p256dh"]), decode_base64url(address["auth"])
        plain = payload_of(job)
        headers = {
            "authorization": self._vapid.authorization(endpoint),
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "ttl": str(min(job.ttl, TTL_MAX)),
            "urgency": "high",  # phones that save their battery get it at once
            # A push service that holds this message replaces it, if it is sent a second time.
            "topic": topic_of(job),
        }
        try:
            answer = await self._http.post(endpoint, headers, encrypt(plain, point, auth))
        except AddressRefused as error:
            return Result(Outcome.REJECTED, error.reason)
        if 200 <= answer.status < 300:
            return Result(Outcome.SENT, provider_id=answer.headers.get("location", ""))
        reason = f"status_{answer.status}"
        if answer.status in (404, 410):
            return Result(Outcome.GONE, reason)
        if answer.status == 429 or answer.status >= 500:
            return Result(Outcome.RETRY, reason, retry_after=answer.retry_after)
        return Result(Outcome.REJECTED, reason)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


def topic_of(job: Job) -> str:
    """Return the Topic of a message: at most 32 characters of base64url (RFC 8030, section 5.4)."""
    return f"imgo-{job.message_id}"


def payload_of(job: Job) -> bytes:
    """Return the JSON that the service worker reads: the message's id, and the content."""
    payload = {"id": str(job.message_id), **job.content}
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
