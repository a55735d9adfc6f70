"""Client of the embedded server's API, for commands that need the state of its process.

Without `REDIS_URL` the registry and the channel layer are in the memory of the only server. A
command is another process. It calls the server over HTTP, with the bootstrap's or the demo's key.
"""

import http.client
import json
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from django.conf import settings

from imgo_site.conf import conf
from imgo_site.deployment import data_dir, redis_url
from imgo_site.errors import ImgoError, NotFound, Unavailable
from push.hooks.figures import HookRow
from push.server.ports import in_url
from push.status import hook_states

TIMEOUT = 10.0  # seconds for one call
PAGE = 1000  # rows of one page, the API's maximum
ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def is_embedded() -> bool:
    """Return whether the registry and the layer are in the server's memory."""
    return not redis_url()


def path_of(*parts: str) -> str:
    """Return a path of the API, such as of `path_of("keys", "a b", "sessions")`."""
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)


def call(method: str, path: str, body: bytes | None = None) -> Any:
    """Call the server's API; return its answer as data.

    Raises an `ImgoError` with the server's message if it refuses the call, `Unavailable` if it does
    not answer.
    """
    host = ANY_ADDRESS.get(conf.HOST, conf.HOST)
    connection = http.client.HTTPConnection(host, conf.HTTP_PORT, timeout=TIMEOUT)
    headers = {"Authorization": f"Api-Key {_api_key(method, path)}", "Host": _host_header()}
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            f"No server answers at http://{in_url(host)}:{conf.HTTP_PORT} ({error}). Without "
            "REDIS_URL only the server's process knows which keys are connected. Start one with "
            "'manage.py imgo'. If one runs, set IMGO_HOST and IMGO_HTTP_PORT to its values, or "
            "REDIS_URL if it has one."
        ) from None
    finally:
        connection.close()
    return _read(method, path, response.status, text)


def all_rows(path: str) -> list[Any]:
    """Return all rows of a list that the API returns in pages."""
    rows: list[Any] = []
    while True:
        page = call("GET", f"{path}?{urlencode({'limit': PAGE, 'offset': len(rows)})}")
        rows += page["results"]
        if not page["results"] or len(rows) >= page["count"]:
            return rows


def hook_rows() -> list[HookRow]:
    """Return the state of the hooks on the live nodes; without Redis, ask the local server.

    Raises an `ImgoError` if it is not known.
    """
    if not is_embedded():
        return hook_states.of_nodes()
    rows: list[HookRow] = call("GET", path_of("stats")).get("hooks", [])
    return rows


def _host_header() -> str:
    """Return a Host that the server accepts."""
    names = [name.lstrip(".") for name in settings.ALLOWED_HOSTS if name != "*"]
    return "localhost" if "localhost" in names or not names else names[0]


def _api_key(method: str, path: str) -> str:
    if conf.API_KEY:
        return conf.API_KEY
    try:
        secrets_of_demo = json.loads((data_dir() / "demo.json").read_text())
        return str(secrets_of_demo["api_key"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Unavailable(
            "Without REDIS_URL this command calls the server's API, and it has no API key for "
            f"that ({method} {path}). If the server uses Redis, set REDIS_URL as it has it. "
            "Otherwise set IMGO_API_KEY for both, and restart the server."
        ) from None


def _read(method: str, path: str, status: int, text: bytes) -> Any:
    try:
        data = json.loads(text) if text else None
    except ValueError:
        data = None
    if status < HTTPStatus.BAD_REQUEST and (data is not None or not text):
        return data
    detail = data.get("detail") if isinstance(data, dict) else None
    message = str(detail or f"The server answered {method} {path} with {status}.")
    if status == HTTPStatus.NOT_FOUND:
        raise NotFound(message)
    raise ImgoError(message)
