"""The Celery application: `celery -A imgo_site worker`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imgo_site.settings")

app = Celery("imgo")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
