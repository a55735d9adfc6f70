"""The project's Celery app, as Celery's documentation has it for Django."""

import os

from celery import Celery

app = Celery("shop", broker=os.environ["SHOP_BROKER"])
app.conf.broker_connection_retry_on_startup = True
app.autodiscover_tasks()
