"""imgo with a shop in it that tells its customers what becomes of their orders."""

from imgo_site.settings import *

INSTALLED_APPS += ["examples.shared", "examples.orders"]
ROOT_URLCONF = "examples.orders.urls"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "orders"
IMGO = {"ROOM_AUTHORIZER": "examples.orders.rooms.authorize_room"}
