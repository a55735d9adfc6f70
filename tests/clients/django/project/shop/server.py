"""An imgo server that fails as a test says. It accepts one push for each dedupe id."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REFUSED = {"status": 400, "code": "bad_request", "detail": "No such key.", "retry": False}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.fault = lambda pushes: None  # returns a status to answer instead, or None
        self.accepted = []  # pushes, one for each dedupe id
        self.repeated = 0
        self.cancelled = []  # dedupe ids
        self.requests = []  # sizes
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def accept(self, push):
        if push["to"] == {"key": "refused"}:
            return {"error": REFUSED}
        with self.lock:
            ids = [one["dedupe_id"] for one in self.accepted]
            if push["dedupe_id"] in ids:
                self.repeated += 1
            else:
                self.accepted.append(push)
            return {"id": str(1 + len(self.accepted))}

    def bodies(self, **to):
        return [push["body"] for push in self.accepted if not to or push["to"] == to]

    def close(self):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        pushes = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"].startswith("Api-Key ")
        self.server.requests.append(len(pushes))
        status = self.server.fault(pushes)
        if status is None:
            self.answer(202, [self.server.accept(push) for push in pushes])
        elif status == "cut":
            [self.server.accept(push) for push in pushes]
            self.close_connection = True
        else:
            self.answer(status, {"status": status, "code": "fault", "detail": "As the test says."})

    def do_DELETE(self):
        dedupe_id = self.path.removeprefix("/api/v1/pushes?dedupe_id=")
        status = self.server.fault([])
        if status == "cut":
            self.close_connection = True
        elif status is not None:
            self.answer(status, {"status": status, "code": "fault", "detail": "As the test says."})
        elif dedupe_id not in [push["dedupe_id"] for push in self.server.accepted]:
            self.answer(404, {"status": 404, "code": "not_found", "detail": "No such push."})
        else:
            self.server.cancelled.append(dedupe_id)
            self.answer(200, {"id": "1", "state": "cancelled", "cancelled": 1, "too_late": 0})

    def answer(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass
