"""Checks of the project around imgo: settings that are missing, or that imgo cannot work with."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks, signing
from django.core.checks import CheckMessage, Error, register
from django.template.loader import get_template
from django.templatetags.static import static
from django.urls import NoReverseMatch, Resolver404, resolve, reverse
from django.utils.module_loading import import_string

from imgo_site.conf import conf
from imgo_site.prefix import prefix
from push.checks.reading import with_settings

NEEDED_APPS = (
    *("accounts", "offline", "push", "channels"),
    *("django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes"),
    *("django.contrib.sessions", "django.contrib.messages", "django.contrib.staticfiles"),
)
PAGE_MIDDLEWARE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
REQUEST_MIDDLEWARE = "imgo_site.middleware.RequestMiddleware"
PROBE_MIDDLEWARE = "push.probes.Probes"
OWN_PATHS = frozenset(
    [
        "1",
        "admin",
        "api",
        "dashboard",
        "demo",
        "favicon.ico",
        "goim",
        "healthz",
        "metrics",
        "readyz",
        "static",
        "sub",
    ]
)
# Django's settings with dotted paths that are imported while a request is served.
MODULES = ("ROOT_URLCONF", "SESSION_ENGINE")
OBJECTS = (
    *("AUTHENTICATION_BACKENDS", "CSRF_FAILURE_VIEW", "FORM_RENDERER", "MESSAGE_STORAGE"),
    *("MIDDLEWARE", "PASSWORD_HASHERS", "SESSION_SERIALIZER"),
)
SECRET_KEY_MIN, SECRET_KEY_DISTINCT_MIN = 32, 8  # characters


@register
def check_apps(**_: object) -> list[CheckMessage]:
    """E020: an app that imgo needs is not installed; W030: the API's page has no scripts."""
    messages: list[CheckMessage] = []
    if missing := [name for name in NEEDED_APPS if not apps.is_installed(name)]:
        messages.append(
            Error(
                f"INSTALLED_APPS lacks {', '.join(missing)}.",
                hint="Add them, or begin your settings with 'from imgo_site.settings import *'.",
                id="imgo.E020",
            )
        )
    if not apps.is_installed("drf_spectacular_sidecar"):
        messages.append(
            checks.Warning(
                "drf_spectacular_sidecar is not in INSTALLED_APPS: the page api/docs/ stays empty.",
                hint="Add it to INSTALLED_APPS.",
                id="imgo.W030",
            )
        )
    return messages


@register
@with_settings
def check_middleware() -> Iterator[CheckMessage]:
    """E021: middleware that the pages or TRUSTED_PROXIES need is missing.

    W031: the middleware for request ids and the access log is missing; W032: the middleware that
    lets probes call by an address is missing.
    """
    if missing := [name for name in PAGE_MIDDLEWARE if name not in settings.MIDDLEWARE]:
        yield Error(
            f"MIDDLEWARE lacks {', '.join(missing)}: the dashboard cannot know its users.",
            hint="Add it where Django's documentation has it, or use MIDDLEWARE of "
            "imgo_site.settings.",
            id="imgo.E021",
        )
    if PROBE_MIDDLEWARE not in settings.MIDDLEWARE:
        yield checks.Warning(
            f"MIDDLEWARE lacks {PROBE_MIDDLEWARE}: /healthz and /readyz answer 400 to probes "
            "that call by an address, as orchestrators do.",
            hint=f"Put it second in MIDDLEWARE, after {REQUEST_MIDDLEWARE}.",
            id="imgo.W032",
        )
    places = [settings.MIDDLEWARE.index(name) for name in PAGE_MIDDLEWARE if name not in missing]
    if places != sorted(places):
        yield Error(
            f"MIDDLEWARE has {', '.join(PAGE_MIDDLEWARE)} in another order: each needs the "
            "one before it.",
            hint="Put them in this order.",
            id="imgo.E021",
        )
    if REQUEST_MIDDLEWARE in settings.MIDDLEWARE:
        return
    if conf.TRUSTED_PROXIES:
        yield Error(
            f"TRUSTED_PROXIES is set, and MIDDLEWARE lacks {REQUEST_MIDDLEWARE}, which reads the "
            "proxies' headers: every client would have the proxy's address.",
            hint="Put it first in MIDDLEWARE.",
            id="imgo.E021",
        )
    else:
        yield checks.Warning(
            f"MIDDLEWARE lacks {REQUEST_MIDDLEWARE}: requests have no id, no trace and no "
            "access log.",
            hint="Put it first in MIDDLEWARE.",
            id="imgo.W031",
        )


@register
def check_imports(**_: object) -> list[CheckMessage]:
    """E045: a Django setting with a dotted path that cannot be imported."""
    messages: list[CheckMessage] = []
    for name, path in _dotted_paths():
        try:
            if name in MODULES:
                import_module(path)
            else:
                import_string(path)
        except Exception as error:  # noqa: BLE001 - a module may raise anything while it is loaded
            messages.append(
                Error(
                    f"{name} has {path!r}, which cannot be imported: {type(error).__name__}: "
                    f"{error}",
                    hint="Correct the path, or install the package that has it.",
                    id="imgo.E045",
                )
            )
    return messages


@register
def check_page_parts(**_: object) -> list[CheckMessage]:
    """E046: settings with which every page and login would fail."""
    messages: list[CheckMessage] = []
    for names, try_out in PARTS_OF_PAGES.items():
        try:
            try_out()
        except Exception as error:  # noqa: BLE001 - a project's own classes may raise anything
            messages.append(
                Error(
                    f"No page can be served with {names}: {type(error).__name__}: "
                    f"{str(error).rstrip(chr(46))}.",
                    hint="Correct them, or use those of imgo_site.settings.",
                    id="imgo.E046",
                )
            )
    return messages


def _make_session() -> None:
    try:
        module = import_module(settings.SESSION_ENGINE)
    except Exception:  # noqa: BLE001 - E045 reports it
        return
    module.SessionStore()


# What each page needs, under the settings that decide about it.
PARTS_OF_PAGES: dict[str, Callable[[], object]] = {
    "these TEMPLATES": lambda: get_template("admin/login.html"),
    "these STATIC_* settings": lambda: static("push/imgo.js"),
    "these SESSION_* settings": _make_session,
    "this SECRET_KEY": lambda: signing.dumps(""),
}


def _dotted_paths() -> Iterator[tuple[str, str]]:
    """Yield the name of each setting with its path or with each of its paths."""
    for name in (*MODULES, *OBJECTS):
        value = getattr(settings, name, None) or ()
        for path in (value,) if isinstance(value, str) else value:
            yield name, str(path)
    for engine in settings.TEMPLATES:
        options: Any = engine.get("OPTIONS", {})
        for path in options.get("context_processors", ()):
            yield "TEMPLATES", str(path)


@register
def check_time_zones(**_: object) -> list[CheckMessage]:
    """E022: USE_TZ is off."""
    if settings.USE_TZ:
        return []
    return [
        Error(
            "USE_TZ is False: imgo compares times with the database's, and messages would expire "
            "hours too early or too late.",
            hint="Set USE_TZ = True. TIME_ZONE may be any.",
            id="imgo.E022",
        )
    ]


@register
def check_pages(**_: object) -> list[CheckMessage]:
    """E023: the dashboard is served without the admin, which signs its users in.

    W040: ROOT_URLCONF has no URLs of imgo.
    """
    if not hasattr(settings, "ROOT_URLCONF"):
        return []
    try:
        reverse("imgo:dashboard")
    except NoReverseMatch:
        if _is_served("/api/v1/pushes"):
            return []  # without the namespace there are no pages of ours
        return [
            checks.Warning(
                "ROOT_URLCONF has none of imgo's URLs: this process answers every push with 404.",
                hint="Add path('', include('push.urls')) to the URLs, as the last one.",
                id="imgo.W040",
            )
        ]
    except Exception:  # noqa: BLE001 - E045 reports it
        return []
    try:
        reverse("admin:index")
    except NoReverseMatch:
        return [
            Error(
                "ROOT_URLCONF has imgo's dashboard, but not the admin, which signs its users in.",
                hint="Add path('admin/', admin.site.urls) to the URLs, or include imgo_site.urls.",
                id="imgo.E023",
            )
        ]
    return []


def _is_served(path: str) -> bool:
    try:
        resolve(path)
    except Resolver404:
        return False
    return True


@register(deploy=True)
def check_secret_key(**_: object) -> list[CheckMessage]:
    """E025: a secret key that can be guessed. A stranger who knows it can sign in as any user."""
    key = settings.SECRET_KEY
    if len(key) >= SECRET_KEY_MIN and len(set(key)) >= SECRET_KEY_DISTINCT_MIN:
        return []
    return [
        Error(
            f"The secret key can be guessed: it has {len(key)} characters, {len(set(key))} of "
            "them different.",
            hint="Set DJANGO_SECRET_KEY to the output of: openssl rand -hex 32",
            id="imgo.E025",
        )
    ]


@register(deploy=True)
def check_hosts(**_: object) -> list[CheckMessage]:
    """E026: an ALLOWED_HOSTS that includes every name."""
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    return [
        Error(
            "ALLOWED_HOSTS has '*': the server answers under any name, so a stranger's site can "
            "show its pages, links and cookies as its own.",
            hint="Set DJANGO_ALLOWED_HOSTS to the names of this server.",
            id="imgo.E026",
        )
    ]


@register
def check_prefix(**_: object) -> list[CheckMessage]:
    """E027: a DJANGO_SCRIPT_NAME that begins like one of imgo's own paths."""
    first = prefix().strip("/").partition("/")[0]
    if first not in OWN_PATHS:
        return []
    return [
        Error(
            f"FORCE_SCRIPT_NAME is {prefix()!r}, and imgo has paths that begin with /{first}: a "
            "path with the prefix and a path without it would look the same.",
            hint="Serve imgo below another path (DJANGO_SCRIPT_NAME).",
            id="imgo.E027",
        )
    ]
