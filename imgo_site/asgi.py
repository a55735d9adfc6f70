"""The ASGI application: HTTP, WebSocket and, under imgo's own Daphne, raw TCP."""

import os

import django
from django.core.asgi import get_asgi_application
from django.utils.module_loading import import_string

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imgo_site.settings")

# Django must be set up before a module that uses models is imported. This call also sets the
# prefix of FORCE_SCRIPT_NAME, which the next call does not; STATIC_URL is cached with the prefix.
django.setup()
http_application = get_asgi_application()

application = import_string("push.routing.get_application")(http_application)
