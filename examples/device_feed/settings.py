"""imgo with a place for what devices measure."""

from imgo_site.settings import *

INSTALLED_APPS += ["examples.device_feed"]
IMGO = {"RECEIVER": "examples.device_feed.receiver.receive"}
