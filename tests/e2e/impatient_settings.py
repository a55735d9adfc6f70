"""For a Celery worker that learns within a second that its broker does not answer."""

from imgo_site.settings import *  # noqa: F403
from imgo_site.settings import CELERY_BROKER_TRANSPORT_OPTIONS as OPTIONS

CELERY_BROKER_TRANSPORT_OPTIONS = {**OPTIONS, "socket_timeout": 0.2}
