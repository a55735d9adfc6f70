"""The Django project: settings, entry points, and what every app stands on.

Nothing here imports an app, so that any app may import from here.
"""

from imgo_site.celery import app as celery_app

__all__ = ["celery_app"]
