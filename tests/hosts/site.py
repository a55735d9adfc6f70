"""A project with middleware, templates, Celery and URL settings of its own, and ATOMIC_REQUESTS."""

from tests.hosts.base import *  # noqa: F403
from tests.hosts.base import DATABASES, IMGO

DATABASES["default"]["ATOMIC_REQUESTS"] = True
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": False,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "loaders": ["django.template.loaders.app_directories.Loader"],
            "string_if_invalid": "INVALID",
        },
    },
]
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"
APPEND_SLASH = True
PREPEND_WWW = False
USE_THOUSAND_SEPARATOR = True
LANGUAGE_CODE = "de"
TIME_ZONE = "Asia/Kolkata"
CSRF_USE_SESSIONS = True
CSRF_HEADER_NAME = "HTTP_X_OURS"
CELERY_TASK_ALWAYS_EAGER = False
CELERY_BROKER_URL = "redis://nowhere.example:1/0"
CELERY_TASK_ROUTES = {"*": {"queue": "theirs"}}
CELERY_TASK_SERIALIZER = "pickle"
CELERY_TASK_DEFAULT_QUEUE = "theirs"
CELERY_TASK_TIME_LIMIT = 1
IMGO = {**IMGO, "DEMO": "off"}
