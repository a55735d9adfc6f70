"""A user model that has nothing of Django's but what it must."""

import os

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from imgo_client.django.signals import message_acknowledged


class Customers(BaseUserManager):
    def create(self, code, **values):
        customer = self.model(code=code, **values)
        customer.set_password(code)
        customer.save()
        return customer


class Customer(AbstractBaseUser):
    code = models.CharField(max_length=50, unique=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)

    USERNAME_FIELD = "code"
    objects = Customers()

    def has_perm(self, permission, obj=None):
        return self.is_staff

    def has_module_perms(self, label):
        return self.is_staff


class Order(models.Model):
    number = models.IntegerField()

    def __str__(self):
        return f"order {self.number}"


@receiver(connection_created)
def do_not_wait_for_the_disk(connection, **_):
    if connection.vendor == "sqlite":
        connection.cursor().execute("PRAGMA synchronous = OFF")


def note_acknowledged(data, **_):
    Order.objects.create(number=data["id"])


if "SHOP_NOTES_EVENTS" in os.environ:
    message_acknowledged.connect(note_acknowledged)
