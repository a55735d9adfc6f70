"""The Django project: settings, entry points, and utilities that all apps share.

No module here imports an app, so any app may import from here.
"""

from imgo_site.celery import app as celery_app

__all__ = ["celery_app"]
