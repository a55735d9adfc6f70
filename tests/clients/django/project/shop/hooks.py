"""Functions that the options of the tests name."""

from imgo_client import Refused
from shop.models import Order

received = []


def code_of(user):
    return f"customer-{user.code}"


def rooms_of(user):
    return ["lobby", f"private-{user.code}-*"]


def info_of(user):
    return {"name": user.code.title()}


def authenticate(data):
    if data.get("token") == "good":
        info = {"name": "Alice"}
        return {"key": "alice", "rooms": ["lobby"], "expires_in": 60, "join": None, "info": info}
    return {"rooms": []} if data.get("token") == "buggy" else None


def authorize(data):
    return data["room"] == "lobby"


def receive(data):
    received.append(data)
    if data.get("fail"):
        raise ValueError("the shop has a bug")
    if data.get("refuse"):
        Order.objects.create(number=1)
        raise Refused("sold_out", "No seat is left.")
    return data.get("reply")


def receive_message(data):
    """As `receive`, for messages that a client has really sent."""
    return receive(data["body"])


not_a_function = 7
