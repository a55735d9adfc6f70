"""imgo with a chat room in it."""

from imgo_site.settings import *

INSTALLED_APPS += ["examples.shared", "examples.chat"]
ROOT_URLCONF = "examples.chat.urls"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "chat"
