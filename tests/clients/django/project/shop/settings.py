"""A project beside imgo, with a user model of its own. The environment says which databases."""

import json
import os

DATABASES = json.loads(os.environ["SHOP_DATABASES"])
if any("mysql" in database["ENGINE"] for database in DATABASES.values()):
    import pymysql  # the driver that needs no compiler

    pymysql.install_as_MySQLdb()

SECRET_KEY = "a secret key for tests only"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "shop.urls"
AUTH_USER_MODEL = "shop.Customer"
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "imgo_client.django",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
IMGO_CLIENT = {
    "URL": "http://127.0.0.1:1",
    "API_KEY": "the-api-key-of-the-tests",
    "HTTP": {"trust_env": False, "verify": False},
    **json.loads(os.environ.get("SHOP_IMGO", "{}")),
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
globals().update(json.loads(os.environ.get("SHOP_SETTINGS", "{}")))
