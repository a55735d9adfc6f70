"""Functions that the options of the tests name."""

received = []


def code_of(user):
    return f"customer-{user.code}"


def rooms_of(user):
    return ["lobby", f"private-{user.code}-*"]


def authenticate(data):
    if data.get("token") == "good":
        return {"key": "alice", "rooms": ["lobby"], "expires_in": 60, "join": None}
    return {"rooms": []} if data.get("token") == "buggy" else None


def authorize(data):
    return data["room"] == "lobby"


def receive(data):
    received.append(data)
    if data.get("fail"):
        raise ValueError("the shop has a bug")


not_a_function = 7
