"""The demo: an admin, an API key and two subscribers, made on the first start and kept.

It exists in the embedded mode alone (unless `DEMO` says otherwise), its secrets are random and
lie in a file that only this user can read.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction

from accounts.models import SCOPES, ApiKey, Token, digest
from imgo_site.conf import conf

KEYS = ("alice", "bob")
ROOM = "lobby"
ADMIN = "admin"


def is_on() -> bool:
    """Whether the demo page is served."""
    return conf.DEMO == "on" or (conf.DEMO == "auto" and not settings.DATABASE_URL)


def _path() -> Path:
    return Path(settings.DATA_DIR) / "demo.json"


def secrets_of_demo() -> dict[str, Any]:
    """The demo's secrets, made if there are none yet: `api_key`, `admin_password`, `tokens`."""
    try:
        found: dict[str, Any] = json.loads(_path().read_text())
    except (FileNotFoundError, ValueError):
        found = {
            "api_key": _new_api_key(),
            "admin_password": secrets.token_urlsafe(9),
            "tokens": {key: secrets.token_urlsafe(12) for key in KEYS},
        }
        _keep(found)
    return found


def _new_api_key() -> str:
    return f"imgo_{secrets.token_urlsafe(30)}"


def _keep(found: dict[str, Any]) -> None:
    _path().parent.mkdir(parents=True, exist_ok=True)
    draft = _path().with_suffix(f".{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(found, indent=1))
    draft.replace(_path())


@transaction.atomic
def prepare() -> dict[str, Any]:
    """See that the database knows the demo's secrets; returns them."""
    known = secrets_of_demo()
    users = get_user_model().objects
    if not users.filter(**{get_user_model().USERNAME_FIELD: ADMIN}).exists():
        users.create_superuser(ADMIN, password=known["admin_password"])
    if ApiKey.objects.filter(digest=digest(known["api_key"])).exclude(revoked_at=None).exists():
        known["api_key"] = _new_api_key()  # what is printed has to work
        _keep(known)
    ApiKey.objects.get_or_create(
        digest=digest(known["api_key"]),
        defaults={"name": "demo", "hint": known["api_key"][-4:], "scopes": sorted(SCOPES)},
    )
    for key, token in known["tokens"].items():
        if not Token.objects.filter(key=key, digest=digest(token)).exists():
            Token.objects.issue(key, token=token)
    return known


def curl_line(api_key: str, base: str) -> str:
    """A first push to type."""
    return (
        f"curl -H 'Authorization: Api-Key {api_key}' "
        f"""-d '{{"to": {{"key": "alice"}}, "body": {{"hello": "world"}}}}' {base}/api/v1/pushes"""
    )
