"""The demo: subscribers, an API key and an admin, created on the first start and kept.

The embedded mode has it by default. `DEMO=on` shows the page with any other database. There it
creates only what the page needs: no superuser, and an API key that may only push. The secrets are
random, and stored in a file that only this user can read.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.db import Error as DatabaseError
from django.db import models, transaction

from accounts.models import SCOPES, ApiKey, Token, digest
from imgo_site.conf import conf
from imgo_site.deployment import data_dir, is_embedded

SUBSCRIBERS = 2
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")
ROOM = "lobby"
ADMIN = "admin"
PUSH_ONLY = ["push"]  # scopes of the demo's API key in a database that is not the demo's own


def is_on() -> bool:
    """Return whether the demo page is served."""
    return conf.DEMO == "on" or (conf.DEMO == "auto" and is_embedded())


def _path() -> Path:
    return data_dir() / "demo.json"


def secrets_of_demo() -> dict[str, Any]:
    """Return the demo's secrets: `api_key`, `admin_password`, and `tokens` by key.

    They are generated if there are none.
    """
    try:
        stored: dict[str, Any] = json.loads(_path().read_text())
    except (FileNotFoundError, ValueError):
        stored = {
            "api_key": _new_api_key(),
            "admin_password": secrets.token_urlsafe(9),
            "tokens": {key: _new_token() for key in NAMES[:SUBSCRIBERS]},
        }
        _write(stored)
    return stored


def _new_api_key() -> str:
    return f"imgo_{secrets.token_urlsafe(30)}"


def _new_token() -> str:
    return secrets.token_urlsafe(12)


def _write(stored: dict[str, Any]) -> None:
    _path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = _path().with_suffix(f".{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(stored, indent=1))
    draft.replace(_path())


@transaction.atomic
def prepare() -> dict[str, Any]:
    """Store those of the demo's secrets in the database that it does not have.

    Returns them as `secrets_of_demo` does, with `admin`: the superuser's name, "" without one.
    """
    stored = secrets_of_demo()
    before = json.dumps(stored)
    stored["tokens"] = _prepare_tokens(stored["tokens"])
    stored["api_key"] = _prepare_api_key(stored["api_key"])
    if json.dumps(stored) != before:
        _write(stored)  # the secrets that are printed must be valid
    admin = _prepare_admin(stored["admin_password"]) if is_embedded() else ""
    return {**stored, "admin": admin}


def _prepare_tokens(stored: dict[str, str]) -> dict[str, str]:
    """Return a token for each of the page's subscribers.

    A key has one token. If someone has given a key another token, that token stays valid, and the
    page uses another key.
    """
    tokens: dict[str, str] = {}
    others = [f"demo-{secrets.token_hex(4)}" for _ in range(SUBSCRIBERS)]
    for key in dict.fromkeys([*stored, *NAMES, *others]):
        text = stored.get(key) or _new_token()
        row = Token.objects.filter(key=key).first()
        if row is None:
            Token.objects.issue(key, token=text)
        if row is None or row.digest == digest(text):
            tokens[key] = text
        if len(tokens) == SUBSCRIBERS:
            break
    return tokens


def _prepare_api_key(text: str) -> str:
    """Return the text of a valid API key: `text`, or a new one if that key was revoked."""
    if ApiKey.objects.filter(digest=digest(text)).exclude(revoked_at=None).exists():
        text = _new_api_key()
    scopes = sorted(SCOPES) if is_embedded() else PUSH_ONLY
    ApiKey.objects.get_or_create(
        digest=digest(text), defaults={"name": "demo", "hint": text[-4:], "scopes": scopes}
    )
    return text


def _prepare_admin(password: str) -> str:
    """Return the login of the demo's superuser, who is created if there is none.

    Returns "" if the project's user model needs more than a name and a password.
    """
    model = get_user_model()
    is_email = isinstance(model._meta.get_field(model.USERNAME_FIELD), models.EmailField)
    name = f"{ADMIN}@example.com" if is_email else ADMIN
    manager: Any = model._default_manager
    if manager.filter(**{model.USERNAME_FIELD: name}).exists():
        return name
    try:
        with transaction.atomic():
            manager.create_superuser(**{model.USERNAME_FIELD: name, "password": password})
    except (AttributeError, TypeError, ValueError, DatabaseError):
        return ""
    return name


def curl_line(api_key: str, base: str, known: dict[str, Any]) -> str:
    """Return a curl command for a first push.

    `api_key`: the text, or a variable of the shell. `base`: the server's URL. `known`: the secrets.
    """
    key = next(iter(known["tokens"]))
    quote = '"' if api_key.startswith("$") else "'"
    return (
        f"curl -H {quote}Authorization: Api-Key {api_key}{quote} "
        f"""-d '{{"to": {{"key": "{key}"}}, "body": {{"hello": "world"}}}}' {base}/api/v1/pushes"""
    )
