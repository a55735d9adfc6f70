"""For a Celery worker that learns within a second that its broker does not answer."""

from imgo_site.settings import *  # noqa: F403

IMGO_CELERY = {"broker_transport_options": {"socket_timeout": 0.2}}
