"""FCM HTTP v1: notifications to Android, and to all that Firebase reaches.

The error codes are those of Firebase's page "FCM error codes".
"""

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlencode

import jwt

from imgo_site.conf import conf
from push.devices.jobs import Job, NoAnswer, Outcome, Result
from push.devices.providers.answer import Answer
from push.devices.providers.base import closing_members, compact_json, text_or_file
from push.devices.providers.http import HttpClient

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"  # RFC 7523
ASSERTION_LIFETIME = 3_600  # seconds, the most that Google accepts
RENEW = 300.0  # seconds before its end when an access token is replaced
QUOTA_PAUSE = 60.0  # seconds after a 429 without Retry-After, as Firebase asks
TTL_MAX = 28 * 86_400  # seconds
MEMBERS = ("project_id", "client_email", "private_key", "token_uri")


def read_credentials(value: str) -> dict[str, str]:
    """Return the service account of `FCM_CREDENTIALS`: its JSON, or the path of its file.

    Raises `ValueError`. No error contains the key.
    """
    try:
        account = json.loads(text_or_file(value, "{"))
    except OSError as error:
        raise ValueError(f"its file cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError("it is not JSON") from None
    for name in MEMBERS:
        if not isinstance(account, dict) or not isinstance(account.get(name), str):
            raise ValueError(f"it has no {name!r}: use the JSON file of a service account")
    return {name: account[name] for name in MEMBERS}


class Fcm:
    """Provider for devices that Firebase reaches."""

    name = "fcm"

    def __init__(self) -> None:
        self._http = HttpClient(is_checked=False)
        self._account = read_credentials(conf.FCM_CREDENTIALS)
        self._token = ""
        self._until = float("-inf")  # Unix time of its end
        self._renewing = asyncio.Lock()

    async def send(self, job: Job) -> Result:
        """Send a notification once. Raises `NoAnswer`."""
        token = await self._access_token()
        answer = await self._post(job, token)
        if answer.status == 401:
            if token == self._token:  # no other notification has renewed it meanwhile
                self._until = float("-inf")
            answer = await self._post(job, await self._access_token())
        return _result(answer)

    async def _post(self, job: Job, token: str) -> Answer:
        project = self._account["project_id"]
        url = f"{conf.FCM_SERVER.rstrip('/')}/v1/projects/{project}/messages:send"
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return await self._http.post(url, headers, payload_of(job))

    async def _access_token(self) -> str:
        """Return a valid access token. One request renews it for all who wait."""
        async with self._renewing:
            if time.time() > self._until - RENEW:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        now = int(time.time())
        claims = {
            "iss": self._account["client_email"],
            "scope": SCOPE,
            "aud": self._account["token_uri"],
            "iat": now,
            "exp": now + ASSERTION_LIFETIME,
        }
        assertion = jwt.encode(claims, self._account["private_key"], algorithm="RS256")
        body = urlencode({"grant_type": GRANT, "assertion": assertion}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = await self._http.post(self._account["token_uri"], headers, body)
        grant = answer.json
        token, seconds = grant.get("access_token"), grant.get("expires_in")
        if answer.status != 200 or not isinstance(token, str) or not isinstance(seconds, int):
            raise NoAnswer(f"no_access_token_{answer.status}")
        self._token, self._until = token, now + seconds

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


def payload_of(job: Job) -> bytes:
    """Return the JSON of a message. Values of its `data` are texts, as FCM wants them."""
    name, ttl = f"imgo-{job.message_id}", min(job.ttl, TTL_MAX)
    message = {
        "token": job.address,
        "webpush": {"headers": {"Topic": name, "TTL": str(ttl)}},
        **(_closing(job, name) if job.closes else _notification(job.content, job, name)),
    }
    message["android"] |= {"collapse_key": name, "ttl": f"{ttl}s"}
    message["apns"]["headers"]["apns-collapse-id"] = name
    return compact_json({"message": message})


def _notification(content: dict[str, Any], job: Job, name: str) -> dict[str, Any]:
    """Return the members of a message that the device shows. `name`: of the notification."""
    data = {"id": str(job.message_id)}
    data |= {name: content[name] for name in ("url", "icon", "tag") if name in content}
    if "data" in content:
        data["data"] = compact_json(content["data"]).decode()
    # On the device, a notification replaces the one with its tag.
    on_device = {"tag": content.get("tag", name)}
    if content.get("icon", "").startswith("https://"):
        on_device["image"] = content["icon"]
    return {
        "notification": {name: content[name] for name in ("title", "body") if name in content},
        "data": data,
        "android": {"priority": "HIGH", "notification": on_device},
        "apns": {"headers": {}},
    }


def _closing(job: Job, name: str) -> dict[str, Any]:
    """Return the members of a message that only the app sees.

    FCM replaces the notification by it if the device has not got that: the collapse keys are equal.
    Firebase lowers the priority of apps that show nothing for messages of the priority HIGH.
    """
    headers = {"apns-push-type": "background", "apns-priority": "5"}
    return {
        "data": {"tag": name, **closing_members(job)},
        "android": {"priority": "NORMAL"},
        "apns": {"headers": headers, "payload": {"aps": {"content-available": 1}}},
    }


def error_code(answer: Answer) -> str:
    """Return FCM's code of an error, such as UNREGISTERED, or the status's name; "" for none."""
    error = answer.json.get("error")
    if not isinstance(error, dict):
        return ""
    details = error.get("details")
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and isinstance(detail.get("errorCode"), str):
            return str(detail["errorCode"])
    return str(error.get("status", ""))


def _result(answer: Answer) -> Result:
    """Return what follows from an answer of FCM."""
    if answer.status == 200:
        return Result(Outcome.SENT, provider_id=str(answer.json.get("name", "")))
    code = error_code(answer) or f"status_{answer.status}"
    # A 404 without this code is a wrong project, not a lost device.
    if code == "UNREGISTERED":
        return Result(Outcome.GONE, code)
    if answer.status == 429:
        pause = answer.retry_after or QUOTA_PAUSE
        return Result(Outcome.RETRY, code, retry_after=pause, pauses=True)
    if answer.status >= 500:
        pause = answer.retry_after
        return Result(Outcome.RETRY, code, retry_after=pause, pauses=bool(pause))
    if answer.status == 401:
        return Result(Outcome.RETRY, code, retry_after=QUOTA_PAUSE, pauses=True)
    return Result(Outcome.REJECTED, code)
