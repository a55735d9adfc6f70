"""The shop's own user model, in an app with a name that imgo has too."""

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """A customer, or with `is_staff` somebody at the desk. The primary key is the imgo key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    phone = models.CharField(max_length=30, blank=True)
