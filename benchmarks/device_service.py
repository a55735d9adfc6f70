"""Push services of phones and browsers: every notification is taken, and nothing is verified.

`python -m benchmarks.device_service HOME`: it writes a certificate into HOME, and its URL to the
standard output.
"""

import json
import sys
import threading
from pathlib import Path

from tests.push.devices.http2_server import Http2Server, Request, Response

TOKEN = json.dumps({"access_token": "access", "expires_in": 3_600}).encode()
SENT = json.dumps({"name": "projects/bench/messages/1"}).encode()


def answer(request: Request) -> Response:
    """Answer as the service whose path it is."""
    if request.path.startswith("/wpush/"):
        return Response(201, {"location": "https://localhost/m/1"})
    if request.path.startswith("/3/device/"):
        return Response(200, {"apns-id": request.headers["apns-id"]})
    return Response(200, {}, TOKEN if request.path == "/token" else SENT)


def main() -> None:
    """Serve until the process is ended."""
    with Http2Server(Path(sys.argv[1]), answer).running() as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
