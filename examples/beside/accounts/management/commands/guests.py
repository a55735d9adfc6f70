"""`manage.py guests`: two users to try the shop with."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.utils.crypto import salted_hmac

GUESTS = {"alice": "a customer", "bob": "at the desk"}


class Command(BaseCommand):
    """Make a customer and a clerk, and print how they sign in. Not for production."""

    help = "Make a customer and a clerk, and print how they sign in."

    def handle(self, **_options: Any) -> None:
        """Their passwords come from the secret key, so they are the same at every start."""
        for name, what in GUESTS.items():
            password = salted_hmac("guests", name, algorithm="sha256").hexdigest()[:12]
            user, _ = get_user_model().objects.get_or_create(
                username=name, defaults={"is_staff": name == "bob"}
            )
            user.set_password(password)
            user.save()
            self.stdout.write(f"  {name} ({what}), password {password}")
