"""A project whose users have no name, a log of the admin of its own, and imgo below a prefix."""

from tests.hosts.base import *  # noqa: F403
from tests.hosts.base import INSTALLED_APPS as IMGO_APPS

INSTALLED_APPS = ["tests.hosts.people", *IMGO_APPS]
AUTH_USER_MODEL = "people.Person"
ROOT_URLCONF = "tests.hosts.users_urls"
FORCE_SCRIPT_NAME = "/site"
