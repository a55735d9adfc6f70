"""imgo with all examples at once: for the checks of types and migrations."""

from imgo_site.settings import *  # noqa: F403
from imgo_site.settings import INSTALLED_APPS as IMGO_APPS

NAMES = ("bell", "chat", "device_feed", "orders")

INSTALLED_APPS = [*IMGO_APPS, "examples.shared", *(f"examples.{name}" for name in NAMES)]
