"""A program: asks every path of imgo in a project's settings, and prints the answers as JSON.

The paths and scopes are those of the scope matrix (`tests/push/api/test_scopes.py`).
"""

import json
import sys
from typing import Any

import django


def walk(part: str, mount: str) -> Any:
    """`part`: `matrix`, each path with each kind of key, or `pages`, the answers to some."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    if part == "matrix":
        return list(matrix(mount))
    return {
        "open": {path: facts(client().get(mount + path)) for path in OPEN},
        "pushed": facts(post(mount, make_key(("push",)))),
        "staff": dict(as_staff(mount)),
    }


OPEN = ("/healthz", "/readyz", "/api/schema/", "/api/docs/", "/", "/dashboard/data", "/dashboard/")
PAGES = ("/dashboard/", "/dashboard/data", "/dashboard/keys", "/dashboard/rooms",
         "/dashboard/streams", "/dashboard/key?name=u1", "/dashboard/act/push")  # fmt: skip


def make_key(scopes: tuple[str, ...]) -> str:
    from accounts.models import ApiKey

    return ApiKey.objects.issue("walk", list(scopes))[1]


def client(key: str | None = None) -> Any:
    from django.test import Client

    headers = {"host": "localhost"} | ({"authorization": f"Api-Key {key}"} if key else {})
    return Client(headers=headers, raise_request_exception=False, enforce_csrf_checks=True)


def post(mount: str, key: str | None) -> Any:
    body = {"to": {"key": "ü"}, "body": {"n": 1.5}}
    return client(key).post(f"{mount}/api/v1/pushes", body, content_type="application/json")


def matrix(mount: str) -> Any:
    from accounts.models import SCOPES
    from tests.push.api.test_scopes import endpoints

    keys = {"none": None, "wrong": "wrong", "empty": make_key(())}
    keys |= {f"only {scope}": make_key((scope,)) for scope in SCOPES}
    for param in endpoints():
        path, method, scopes = param.values
        without = f"without {' '.join(sorted(scopes))}"
        if without not in keys:
            keys[without] = make_key(tuple(set(SCOPES) - scopes))
        for name in ("none", "wrong", "empty", without, *(f"only {scope}" for scope in scopes)):
            answer = getattr(client(keys[name]), method)(mount + path)
            yield [method, path, name.split()[0], answer.status_code, answer.get("Content-Type")]


def as_staff(mount: str) -> Any:
    from django.contrib.auth import get_user_model

    model = get_user_model()
    user = model.objects.create_superuser(
        **{model.USERNAME_FIELD: "root@example.com", "password": "secret"}
    )
    browser = client()
    browser.force_login(user)
    for path in PAGES:
        yield path, facts(browser.get(mount + path))
    yield (
        "without CSRF token",
        facts(browser.post(f"{mount}/dashboard/act/push", {"target": "all", "body": "1"})),
    )


def facts(answer: Any) -> dict[str, Any]:
    text = b"" if answer.streaming else answer.content
    return {
        "status": answer.status_code,
        "type": answer.get("Content-Type", ""),
        "cache": answer.get("Cache-Control", ""),
        "location": answer.get("Location", ""),
        "text": text.decode(),
    }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(walk(*sys.argv[1:])))
