"""The ASGI application: HTTP, WebSocket and (under our own Daphne) raw TCP."""

import os

from django.core.asgi import get_asgi_application
from django.utils.module_loading import import_string

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imgo_site.settings")

# Django must be set up before anything that touches models is imported.
http_application = get_asgi_application()

application = import_string("push.routing.get_application")(http_application)
