"""Start imgo and the shop beside it: two projects, two databases, two processes.

    python examples/beside/start.py

Ctrl-C ends both. Ports: IMGO_HTTP_PORT (8000) and SHOP_PORT (8001). IMGO_DATA_DIR (var/beside)
holds the databases and the secrets of both.
"""

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

SHOP = Path(__file__).resolve().parent
ROOT = SHOP.parent.parent  # imgo's own checkout
DATA = Path(os.environ.get("IMGO_DATA_DIR", ROOT / "var" / "beside")).resolve()
IMGO_PORT = os.environ.get("IMGO_HTTP_PORT", "8000")
SHOP_PORT = os.environ.get("SHOP_PORT", "8001")
URLS = (
    f"http://localhost:{IMGO_PORT}/static/push/imgo.js",
    f"http://localhost:{SHOP_PORT}/signin/",
)
POLL = 0.2  # seconds

IMGO = [sys.executable, str(ROOT / "manage.py")]
MANAGE = [sys.executable, str(SHOP / "manage.py")]


def known_secrets() -> dict[str, str]:
    """Return the secrets that both sides know, and the shop's own; made at the first start."""
    file = DATA / "secrets.json"
    if not file.exists():
        made = {
            name: secrets.token_urlsafe(32)
            for name in ("IMGO_API_KEY", "IMGO_JWT_SECRET", "SHOP_SECRET_KEY")
        }
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        made["IMGO_WEBHOOK_SECRET"] = f"whsec_{key}"
        file.touch(mode=0o600)
        file.write_text(json.dumps(made))
    found: dict[str, str] = json.loads(file.read_text())
    return found


def environment_of_imgo(known: dict[str, str]) -> dict[str, str]:
    """Return what imgo is given: an API key, the secret of tokens, and where to send events."""
    webhook = {
        "url": f"http://localhost:{SHOP_PORT}/imgo/webhook/",
        "secret": known["IMGO_WEBHOOK_SECRET"],
        "events": ["message.received"],
    }
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "imgo_site.settings",
        "IMGO_DATA_DIR": str(DATA / "imgo"),
        "IMGO_API_KEY": known["IMGO_API_KEY"],
        "IMGO_JWT_SECRET": known["IMGO_JWT_SECRET"],
        "IMGO_WEBHOOKS": json.dumps([webhook]),
    }


def environment_of_shop(known: dict[str, str]) -> dict[str, str]:
    """Return what the shop is given. A project of yours has installed imgo-client[django]."""
    path = [str(ROOT / "clients" / "python"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **known,
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "IMGO_URL": f"http://localhost:{IMGO_PORT}",
        "SHOP_DATABASE": str(DATA / "shop.sqlite3"),
    }


def main() -> int:
    """Run both until Ctrl-C, a SIGTERM, or the end of one of them; return the exit status."""
    # A shell without job control starts background jobs with SIGINT ignored. The shop's runserver
    # would inherit that, and never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    DATA.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = known_secrets()
    shop = environment_of_shop(known)
    subprocess.run([*MANAGE, "migrate", "--verbosity", "0"], cwd=SHOP, env=shop, check=True)
    serve = [*MANAGE, "runserver", "--noreload", f"localhost:{SHOP_PORT}"]
    both = [
        subprocess.Popen([*IMGO, "imgo"], cwd=ROOT, env=environment_of_imgo(known)),
        subprocess.Popen(serve, cwd=SHOP, env=shop, stdout=subprocess.DEVNULL),
    ]

    def interrupt(*_: object) -> None:
        for one in both:
            one.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        if all(wait_until_it_answers(one, url) for one, url in zip(both, URLS, strict=True)):
            print("\nUsers of the shop:", flush=True)
            subprocess.run([*MANAGE, "guests"], cwd=SHOP, env=shop, check=True)
            print(f"The shop: http://localhost:{SHOP_PORT}/ (imgo: port {IMGO_PORT})", flush=True)
        while all(one.poll() is None for one in both):
            time.sleep(POLL)
        for one in both:
            one.send_signal(signal.SIGINT)  # to the other one
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both, too
    statuses = [one.wait() for one in both]
    return int(any(statuses))


def wait_until_it_answers(process: subprocess.Popen[bytes], url: str) -> bool:
    """Return whether it serves; False if it has ended instead."""
    while process.poll() is None:
        try:
            with build_opener(ProxyHandler({})).open(url, timeout=2):
                return True
        except OSError:
            time.sleep(POLL)
    return False


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # before both were started
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # it has told why
