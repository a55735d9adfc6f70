"""APNs: notifications to devices of Apple, by its HTTP/2 interface with tokens.

The statuses and reasons are those of Apple's page "Handling notification responses from APNs".
"""

import time
import uuid
from typing import Any

import jwt

from imgo_site.conf import conf
from push.devices.jobs import Job, Outcome, Result
from push.devices.providers.answer import Answer
from push.devices.providers.base import closing_members, compact_json, text_or_file
from push.devices.providers.http import HttpClient

TOKEN_LIFETIME = 2_400  # seconds; Apple wants a new token every 20 to 60 minutes
SKEW = 60  # seconds that a clock may be set back: Apple refuses new tokens in short succession
# Reasons of 403 and 429 for which another token helps, or the whole provider must wait.
EXPIRED = "ExpiredProviderToken"
TOKEN_REASONS = (
    EXPIRED,
    "InvalidProviderToken",
    "MissingProviderToken",
    "TooManyProviderTokenUpdates",
)
PAUSE = 60.0  # seconds that the provider waits if Apple refuses the token


class Apns:
    """Provider for devices of Apple."""

    name = "apns"

    def __init__(self) -> None:
        self._http = HttpClient(is_checked=False)
        self._key = text_or_file(conf.APNS_KEY, "-----BEGIN")
        self._token = ""
        self._made_at = float("-inf")  # Unix time

    async def send(self, job: Job) -> Result:
        """Send a notification once. Raises `NoAnswer`."""
        token = self._provider_token()
        answer = await self._post(job, token)
        if answer.status == 403 and _reason(answer) == EXPIRED:
            if token == self._token:  # no other notification has renewed it meanwhile
                self._made_at = float("-inf")
            answer = await self._post(job, self._provider_token())
        return _result(answer)

    async def _post(self, job: Job, token: str) -> Answer:
        # A background push must not have the priority 10.
        kind, priority = ("background", "5") if job.closes else ("alert", "10")
        headers = {
            "authorization": f"bearer {token}",
            "content-type": "application/json",
            "apns-topic": conf.APNS_TOPIC,
            "apns-push-type": kind,
            "apns-priority": priority,
            "apns-expiration": str(int(time.time()) + job.ttl),
            "apns-id": notification_id(job),
            "apns-collapse-id": f"imgo-{job.message_id}",
        }
        url = f"{conf.APNS_SERVER.rstrip('/')}/3/device/{job.address}"
        return await self._http.post(url, headers, payload_of(job))

    def _provider_token(self) -> str:
        now = time.time()
        # A token of the future was signed before the clock was set back. Apple refuses it.
        if not -SKEW <= now - self._made_at <= TOKEN_LIFETIME:
            claims = {"iss": conf.APNS_TEAM_ID, "iat": int(now)}
            headers = {"kid": conf.APNS_KEY_ID}
            self._token = jwt.encode(claims, self._key, algorithm="ES256", headers=headers)
            self._made_at = now
        return self._token

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


def notification_id(job: Job) -> str:
    """Return the apns-id of a notification, a UUID that depends on message and device only.

    What closes it has another one.
    """
    name = f"imgo:{job.message_id}:{job.device_id}{':close' if job.closes else ''}"
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def payload_of(job: Job) -> bytes:
    """Return the JSON of a notification, or of a background push that tells the app to close it.

    The app finds the members of `imgo` in `userInfo`.
    """
    content = job.content
    if job.closes:
        return compact_json({"aps": {"content-available": 1}, "imgo": closing_members(job)})
    alert = {name: content[name] for name in ("title", "body") if name in content}
    aps: dict[str, Any] = {"alert": alert, "sound": "default"}
    if "tag" in content:
        aps["thread-id"] = content["tag"]
    own: dict[str, Any] = {"id": str(job.message_id)}
    own |= {name: content[name] for name in ("url", "icon", "data") if name in content}
    return compact_json({"aps": aps, "imgo": own})


def _reason(answer: Answer) -> str:
    return str(answer.json.get("reason", ""))


def _result(answer: Answer) -> Result:
    """Return what follows from an answer of APNs."""
    if answer.status == 200:
        return Result(Outcome.SENT, provider_id=answer.headers.get("apns-id", ""))
    reason = _reason(answer) or f"status_{answer.status}"
    if answer.status == 410:
        since = answer.json.get("timestamp")
        gone_at = since / 1_000 if isinstance(since, int | float) else None  # from milliseconds
        return Result(Outcome.GONE, reason, gone_at=gone_at)
    if reason in TOKEN_REASONS:
        return Result(Outcome.RETRY, reason, retry_after=PAUSE, pauses=True)
    if answer.status == 429 or answer.status >= 500:
        # 503 is of the whole service. 429 is of one device that gets too many.
        is_whole = answer.status == 503 and bool(answer.retry_after)
        return Result(Outcome.RETRY, reason, retry_after=answer.retry_after, pauses=is_whole)
    # BadDeviceToken included: with a wrong APNS_SERVER every token would have this answer.
    return Result(Outcome.REJECTED, reason)
