"""devices: what a notification to a phone or a browser costs a node."""

import json
import time
from pathlib import Path
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks import proc
from benchmarks.bench import Bench
from benchmarks.client import Client
from benchmarks.processes import Process, StartError
from benchmarks.servers import HOST, Stack

PROVIDERS = {"webpush": "Web Push", "apns": "APNs", "fcm": "FCM"}
VAPID = "3KzvKasA2SoCxsp0iIG_o9B0Ozvl1XDwI63JRKNIWBM"  # of no real server
KEYS_A_PUSH = 500
IDLE = 4.0  # seconds in which the node's own CPU is measured
WARM = 50  # notifications before: the connection is open then, and the tokens are made
TIMEOUT = 300.0  # seconds
NOTIFY = {"title": "Order 7", "body": "It is on its way.", "url": "/orders/7"}
_TAKEN = "SELECT count(*) FROM offline_event WHERE kind = 'notified'"


class Service(Process):
    """The push services, in a process of their own."""

    def __init__(self, stack: Stack) -> None:
        self.home = stack.home / "devices"
        self.home.mkdir(exist_ok=True)
        command = ["-m", "benchmarks.device_service", str(self.home)]
        log = stack.home / "devices.log"
        super().__init__("the push services", command, log, stack.env, piped=True)
        assert self.popen.stdout is not None
        self.url = self.popen.stdout.readline().decode().strip()
        if not self.url:
            raise StartError("the push services did not start")
        stack.processes.append(self)

    def settings(self, provider: str) -> dict[str, str]:
        """The environment of a node that sends to one of them."""
        found = {
            "webpush": {
                "WEBPUSH_PRIVATE_KEY": VAPID,
                "WEBPUSH_SUBJECT": "mailto:push@example.com",
                "WEBPUSH_HOSTS": self.url.removeprefix("https://"),
                "WEBPUSH_NETWORKS": f"{HOST}/32,::1/128",
            },
            "apns": {
                "APNS_KEY": _write(self.home / "key.p8", ec.generate_private_key(ec.SECP256R1())),
                "APNS_KEY_ID": "KEY1234567",
                "APNS_TEAM_ID": "TEAM123456",
                "APNS_TOPIC": "com.example.shop",
                "APNS_SERVER": self.url,
            },
            "fcm": {"FCM_CREDENTIALS": self._account(), "FCM_SERVER": self.url},
        }[provider]
        found |= {"NOTIFY_CA_FILE": str(self.home / "localhost.pem"), "NOTIFY_RATE": "100000"}
        return {f"IMGO_{name}": value for name, value in found.items()}

    def _account(self) -> str:
        pem = _write(self.home / "account.pem", rsa.generate_private_key(65_537, 2_048))
        account = {
            "project_id": "bench",
            "client_email": "push@bench.test",
            "private_key": Path(pem).read_text(),
            "token_uri": f"{self.url}/token",
        }
        path = self.home / "account.json"
        path.write_text(json.dumps(account))
        return str(path)


def _write(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(path)


def run(bench: Bench) -> None:
    """Send one notification to each device, with each provider."""
    service = Service(bench.stack)
    for provider in PROVIDERS:
        _send(bench, service, provider)


def _send(bench: Bench, service: Service, provider: str) -> None:
    """Report the CPU of a node that sends one notification to each of many devices."""
    count = bench.sizes(2_000, 20_000)
    bench.stack.seed("devices", provider, WARM + count, service.url)
    settings = service.settings(provider)
    # Processes that accept a push with `notify` need a provider, too.
    bench.stack.env |= settings
    api, node = bench.stack.api(), bench.stack.node()
    worker = bench.stack.worker()
    try:
        _notify(bench, api.port, provider, 0, WARM)
        bench.step(f"{PROVIDERS[provider]}: an idle node")
        idle = node.cpu()
        time.sleep(IDLE)
        idle = (node.cpu() - idle) / IDLE
        bench.step(f"{count:,} notifications over {PROVIDERS[provider]}")
        readings = node.cpu(), bench.stack.postgres_cpu(), proc.cpu(service.pid)
        wall = _notify(bench, api.port, provider, WARM, count)
        after = node.cpu(), bench.stack.postgres_cpu(), proc.cpu(service.pid)
    finally:
        bench.stack.stop(node, worker, api)
        for name in settings:
            del bench.stack.env[name]
    spent, postgres, received = (b - a for a, b in zip(readings, after, strict=True))
    spent -= idle * wall
    bench.row(
        f"sent by one node over {PROVIDERS[provider]}, {count:,} devices",
        count / spent,
        "notifications/CPU s",
        note=f"{count / wall:,.0f}/s by the clock; {spent / count * 1e6:,.0f} µs of the node and "
        f"{postgres / count * 1e6:,.0f} µs of Postgres, with the pushes, for each",
        details={
            "notifications": count,
            "wall_s": wall,
            "node_us": spent / count * 1e6,
            "postgres_us": postgres / count * 1e6,
            "receiver_us": received / count * 1e6,
        },
    )


def _notify(bench: Bench, port: int, provider: str, first: int, count: int) -> float:
    """Push to keys with a device each; return the seconds until all are taken and recorded."""
    client = Client(port)
    keys = [f"{provider}-{number}" for number in range(first, first + count)]
    with bench.stack.database() as database:
        before = _count(database)
        began = time.monotonic()
        for start in range(0, count, KEYS_A_PUSH):
            to = {"keys": keys[start : start + KEYS_A_PUSH]}
            client.push({"to": to, "body": 1, "notify": NOTIFY, "notify_after": 0})
        while _count(database) - before < count:
            if time.monotonic() - began > TIMEOUT:
                raise StartError(f"{_count(database) - before} of {count} were taken in time")
            time.sleep(0.05)
    client.close()
    return time.monotonic() - began


def _count(database: "psycopg.Connection[tuple[Any, ...]]") -> int:
    row = database.execute(_TAKEN).fetchone()
    assert row is not None
    return int(row[0])
