"""The HTTP API under a WSGI server: `gunicorn imgo_site.wsgi`. It holds no sessions."""

import os

import django
from django.core.wsgi import get_wsgi_application

from imgo_site import garbage_collection
from imgo_site.postgres.limits import limit_statements
from imgo_site.wsgi_bodies import BodyRequest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imgo_site.settings")

# This call sets the prefix of FORCE_SCRIPT_NAME, which the next call does not; STATIC_URL is cached
# with the prefix.
django.setup()
application = get_wsgi_application()
application.request_class = BodyRequest
limit_statements()
garbage_collection.freeze()
