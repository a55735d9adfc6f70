"""`manage.py guest`: users to try an example with."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.shortcuts import resolve_url
from django.utils.crypto import salted_hmac

from imgo_site.conf import conf
from imgo_site.deployment import data_dir, is_embedded


class Command(BaseCommand):
    """Make users where there are none of these names, and say how they sign in."""

    help = "Make users to try an example with, and say how they sign in. Not for production."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the names of the users."""
        parser.add_argument("names", nargs="+", metavar="NAME")

    def handle(self, **options: Any) -> None:
        """Each has the same password in every run: it comes from the secret key."""
        if is_embedded():
            self.stdout.write(
                f"Data: {data_dir()}, shared with 'make run' (IMGO_DATA_DIR: another)."
            )
        self.stdout.write("Users:")
        for name in options["names"]:
            password = salted_hmac("examples.guest", name, algorithm="sha256").hexdigest()[:12]
            user, is_new = get_user_model().objects.get_or_create(username=name)
            if is_new or not user.check_password(password):
                user.set_password(password)
                user.save()
            self.stdout.write(f"  {name}, password {password}")
        page = f"http://localhost:{conf.HTTP_PORT}{resolve_url(settings.LOGIN_REDIRECT_URL)}"
        self.stdout.write(f"Sign in as one of them at {page}\n")
