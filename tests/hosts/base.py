"""imgo's settings with a database and a layer that need no service, for a process of its own."""

import os

from imgo_site.settings import *  # noqa: F403

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["HOST_DATABASE"]}
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
IMGO = {"SESSION_AUTH": True}
