"""Django's settings, all of them from the environment.

There are two modes with the same code. Without environment variables: SQLite, an in-process
channel layer, tasks in the calling process, one process. With `DATABASE_URL` and `REDIS_URL`:
Postgres, the Redis pub/sub layer, Celery workers, and any number of nodes and API processes.

imgo's own settings are the `IMGO` dictionary; `imgo_site/setting_groups/` declares them.
Each can be set in the environment as `IMGO_<NAME>`.
"""

import logging
import os
import re
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from imgo_site import environment
from imgo_site.postgres import url
from imgo_site.service_urls import check_redis_url

BASE_DIR = Path(__file__).resolve().parent.parent
# An installed package has no checkout in which files could be stored.
_IS_CHECKOUT = (BASE_DIR / "manage.py").exists()
_HOME = BASE_DIR if _IS_CHECKOUT else Path.cwd()
DATA_DIR = Path(os.environ.get("IMGO_DATA_DIR") or _HOME / "var").resolve()
DATABASE_URL = os.environ.get("DATABASE_URL", "")
DATABASE_REPLICA_URL = os.environ.get("DATABASE_REPLICA_URL", "")
REDIS_URL = os.environ.get("REDIS_URL", "")

IMGO: dict[str, Any] = {"REPLICA_DATABASE": "replica"} if DATABASE_REPLICA_URL else {}


def _script_name() -> str | None:
    """Return the environment variable DJANGO_SCRIPT_NAME as a path; None if it is not set.

    Raises `ImproperlyConfigured`.
    """
    value = os.environ.get("DJANGO_SCRIPT_NAME", "").strip().rstrip("/")
    if value and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value):
        raise ImproperlyConfigured(
            f"DJANGO_SCRIPT_NAME={value!r}: say a path that begins with a slash, such as /push."
        )
    return value or None


def _secret_key() -> str:
    """Return the secret key of the environment, or in the embedded mode that of its file.

    The embedded mode creates the file on its first start. Raises `ImproperlyConfigured`.
    """
    if key := os.environ.get("DJANGO_SECRET_KEY", ""):
        return key
    if DATABASE_URL:
        raise ImproperlyConfigured(
            "DJANGO_SECRET_KEY is not set. Every process of a production setup needs the same "
            "one: use the output of openssl rand -hex 32"
        )
    try:
        return _kept_secret(DATA_DIR / "secret_key")
    except OSError as error:
        raise _no_data_dir(error) from None


def _no_data_dir(error: OSError) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        f"The data directory {DATA_DIR} cannot be used ({error.strerror}): set IMGO_DATA_DIR to "
        "one that can be written."
    )


def _kept_secret(path: Path) -> str:
    """Return the content of the file; create the file if it is missing. Raises `OSError`."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written under another name and linked: two concurrent first starts must use the same key.
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_urlsafe(50))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().strip()


def _make_private(path: Path) -> None:
    """Create the database file if it is missing; let only this user read it. Raises `OSError`.

    SQLite gives its -wal and -shm files the same permissions.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        # An older version made them readable for all users. Files of other users are unchanged.
        if file.exists() and file.stat().st_uid == os.getuid() and file.stat().st_mode & 0o077:
            file.chmod(0o600)


def _database() -> dict[str, Any]:
    """Return the database: Postgres by `DATABASE_URL`, else SQLite in the data directory.

    Raises `ImproperlyConfigured`.
    """
    if not DATABASE_URL:
        try:
            _make_private(DATA_DIR / "imgo.sqlite3")
        except OSError as error:
            raise _no_data_dir(error) from None
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA_DIR / "imgo.sqlite3",
            "OPTIONS": {
                # IMMEDIATE: a transaction takes the write lock when it begins. Otherwise one that
                # reads and then writes could fail with "database is locked" when it writes.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,  # seconds
                # FULL: a 2xx response guarantees that the message is on disk.
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
        }
    try:
        return url.parse(DATABASE_URL, environment.at_least(3, "DATABASE_POOL_SIZE", 4))
    except ValueError:
        raise _bad_database_url("DATABASE_URL") from None


def _replica() -> dict[str, Any]:
    """Return the database of `DATABASE_REPLICA_URL`. Raises `ImproperlyConfigured`."""
    try:
        return url.parse_replica(DATABASE_REPLICA_URL)
    except ValueError:
        raise _bad_database_url("DATABASE_REPLICA_URL") from None


def _bad_database_url(name: str) -> ImproperlyConfigured:
    # Without the error's own text, which may contain the password.
    return ImproperlyConfigured(
        f"{name} cannot be read: write postgres://user:password@host/database, several "
        "hosts as one:5432,two:5432, and in the password what is not a letter or digit as %XX."
    )


def _check_redis_url() -> None:
    try:
        check_redis_url(REDIS_URL)
    except ValueError:
        # Without the error's own text, which may contain the password.
        raise ImproperlyConfigured(
            "REDIS_URL cannot be read: say redis://host:6379/0, or rediss:// or unix://, or "
            "redis+sentinel://host:26379,host:26379/service/0, with no other options than "
            "redis-py has."
        ) from None


def _check_metrics_directory() -> None:
    """Raise `ImproperlyConfigured` if the directory of shared metrics cannot be written to.

    Without this check, modules with metrics would fail during their import.
    """
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    if directory and not (Path(directory).is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        raise ImproperlyConfigured(
            f"PROMETHEUS_MULTIPROC_DIR={directory!a} is no directory that can be written to: "
            "make it, or unset the variable."
        )


def _origins() -> list[str]:
    """Return the origins in DJANGO_CSRF_TRUSTED_ORIGINS. Raises `ImproperlyConfigured`."""
    origins = environment.items("DJANGO_CSRF_TRUSTED_ORIGINS")
    for origin in origins:
        try:
            has_host = bool(urlsplit(origin).netloc)
        except ValueError:
            has_host = False
        if "://" not in origin or not has_host:
            raise ImproperlyConfigured(
                f"DJANGO_CSRF_TRUSTED_ORIGINS has {origin!a}: say origins such as "
                "https://www.example.com, separated by commas."
            )
    return origins


_check_metrics_directory()
SECRET_KEY = _secret_key()
DEBUG = environment.flag("DJANGO_DEBUG")
_LOCAL_NAMES = "localhost,127.0.0.1,[::1]"
ALLOWED_HOSTS = environment.items("DJANGO_ALLOWED_HOSTS", "" if DATABASE_URL else _LOCAL_NAMES)
CSRF_TRUSTED_ORIGINS = _origins()
# The path prefix under which a proxy serves the site; see imgo_site/prefix.py.
FORCE_SCRIPT_NAME = _script_name()
if FORCE_SCRIPT_NAME:
    # The site above the prefix has cookies of its own, which the browser sends here too.
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "imgo_sessionid", "imgo_csrftoken"
    SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = FORCE_SCRIPT_NAME
CSRF_FAILURE_VIEW = "push.dashboard.access.csrf_failure"
if environment.flag("DJANGO_BEHIND_TLS_PROXY"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    # Pages are redirected to https://, but not the API and the probes. Internal backends and
    # monitoring call nodes directly, and a redirected POST loses its body.
    SECURE_SSL_REDIRECT = environment.flag("DJANGO_SSL_REDIRECT", default=True)
    _BELOW = re.escape(f"{FORCE_SCRIPT_NAME}/".lstrip("/")) if FORCE_SCRIPT_NAME else ""
    SECURE_REDIRECT_EXEMPT = [rf"^{_BELOW}(api|1|goim)/", rf"^{_BELOW}(healthz|readyz|metrics)$"]
    # For so many seconds a browser that has visited this host uses only HTTPS for it. This cannot
    # be revoked, so the default is an hour; use a year (31536000) when HTTPS is known to work.
    SECURE_HSTS_SECONDS = environment.seconds("DJANGO_HSTS_SECONDS", 3600)
    # These affect subdomains, and preloading is permanent. Only the domain's owner can decide, so
    # both are off by default, and Django's checks about them are silenced.
    SECURE_HSTS_INCLUDE_SUBDOMAINS = environment.flag("DJANGO_HSTS_SUBDOMAINS")
    SECURE_HSTS_PRELOAD = environment.flag("DJANGO_HSTS_PRELOAD")
    SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "accounts",
    "offline",
    "push",
]

MIDDLEWARE = [
    "imgo_site.middleware.RequestMiddleware",
    "push.probes.Probes",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "imgo_site.unstorable_urls.ImpossibleValues",
]

ROOT_URLCONF = "imgo_site.urls"
ASGI_APPLICATION = "imgo_site.asgi.application"
WSGI_APPLICATION = "imgo_site.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [
            BASE_DIR / "templates" if _IS_CHECKOUT else Path(__file__).parent / "templates",
        ],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": _database()}
DATABASE_ROUTERS: list[str] = []
if DATABASE_REPLICA_URL:
    DATABASES["replica"] = _replica()
    DATABASE_ROUTERS = ["imgo_site.replica.ReplicaRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en"
FORMAT_MODULE_PATH = "imgo_site.formats"
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
STATIC_ROOT = os.environ.get("DJANGO_STATIC_ROOT") or None
# Static files are served from the apps, so no collectstatic is needed before the first start.
WHITENOISE_USE_FINDERS = True

# Upper bound in bytes for request bodies; the effective limit is `MAX_REQUEST` of `IMGO`.
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024 * 1024
# For the keys that goim's callers name in a query; Django's default is a thousand.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 10_000

if REDIS_URL:
    _check_redis_url()
    CHANNEL_LAYERS: dict[str, Any] = {
        "default": {
            # Not the core Redis layer, which drops messages at a capacity of 100.
            "BACKEND": "push.layers.PubSubChannelLayer",
            "CONFIG": {"hosts": [REDIS_URL], "prefix": "imgo"},
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "push.layers.InProcessChannelLayer"}}

# The broker of imgo's own tasks, and options of its Celery application, by their names in Celery.
# Settings `CELERY_*` are for the project's own tasks; see imgo_site/celery.py.
IMGO_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "") or REDIS_URL
IMGO_CELERY: dict[str, Any] = {}

LOG_FORMAT = os.environ.get("LOG_FORMAT", "").strip().lower() or "line"
if LOG_FORMAT not in {"line", "json"}:
    raise ImproperlyConfigured(f"LOG_FORMAT={LOG_FORMAT!r}: say json, or line.")

LOG_LEVEL = os.environ.get("LOG_LEVEL", "").strip().upper() or "INFO"
if LOG_LEVEL not in logging.getLevelNamesMapping():
    raise ImproperlyConfigured(f"LOG_LEVEL={LOG_LEVEL!r}: say DEBUG, INFO, WARNING or ERROR.")

if LOG_FORMAT == "json":
    logging.captureWarnings(True)  # so that Python's warnings are JSON lines too

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "imgo_site.logs.LineFormatter",
            "format": "{asctime} {levelname:<7} {name}: {message}",
            "style": "{",
        },
        "json": {"()": "imgo_site.logs.JsonLines"},
    },
    "filters": {
        "request": {"()": "imgo_site.logs.RequestFilter"},
        "one_line": {"()": "imgo_site.fault_logs.OneLine"},
        "no_aborts": {"()": "imgo_site.fault_logs.NoAborts"},
        "no_repeats": {"()": "imgo_site.fault_logs.NoRepeats"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["request", "one_line"],
        }
    },
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "asyncio": {"filters": ["no_aborts"]},
        # Daphne's own lines about endpoints and reactors only repeat imgo's.
        "daphne": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
        # A wrong Host header, too many fields or an unknown column are mistakes of the caller.
        # They get a 400 without a traceback in the log.
        "django.security": {"level": "CRITICAL"},
        "django.security.csrf": {"level": "WARNING"},  # logged: mostly wrong configuration
        # One line a push; in the embedded mode also about a broker that does not exist.
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "kombu.connection": {"level": "ERROR"},
        "psycopg.pool": {"filters": ["no_repeats"]},  # logs each attempt of each connection
        "httpx": {"level": "WARNING"},  # a project's own: one line a request
        # One line a request.
        "imgo.access": {"level": "INFO" if environment.flag("LOG_ACCESS") else "WARNING"},
        # Some lines a push.
        "imgo.push": {"level": "INFO" if environment.flag("LOG_PUSHES") else "WARNING"},
        # One line for each opening, refusal and closing of a session.
        "imgo.session": {"level": "INFO" if environment.flag("LOG_SESSIONS") else "WARNING"},
    },
}
