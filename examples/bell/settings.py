"""imgo with a notification bell in it."""

from imgo_site.settings import *

INSTALLED_APPS += ["examples.shared", "examples.bell"]
ROOT_URLCONF = "examples.bell.urls"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
