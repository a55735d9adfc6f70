"""A project that has installed imgo's apps, and has none of `imgo_site.settings`."""

SECRET_KEY = "a project's own"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "accounts",
    "offline",
    "push",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = False
