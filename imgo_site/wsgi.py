"""The HTTP API under a WSGI server: `gunicorn imgo_site.wsgi`. It holds no sessions."""

import os

from django.core.wsgi import get_wsgi_application

from imgo_site import collector
from imgo_site.postgres.limits import limit_statements

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imgo_site.settings")

application = get_wsgi_application()
limit_statements()
collector.calm()
