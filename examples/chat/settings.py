"""imgo with a chat room in it."""

from imgo_site.settings import *

INSTALLED_APPS += ["examples.shared", "examples.chat"]
ROOT_URLCONF = "examples.chat.urls"
IMGO = {
    **IMGO,
    # The room remembers messages, browsers may publish (who is typing), and it knows who is there.
    "ROOMS": {"chat": {"history": 500, "client_publish": "members", "presence": True}},
    "SESSION_KEY": "examples.chat.models.key_of",
}
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "chat"
