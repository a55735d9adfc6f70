"""imgo's settings, and an app with a page that has the client on it."""

from imgo_site.settings import *  # noqa: F403
from imgo_site.settings import INSTALLED_APPS as IMGO_APPS

INSTALLED_APPS = [*IMGO_APPS, "tests.browser.app"]
ROOT_URLCONF = "tests.browser.app.urls"
