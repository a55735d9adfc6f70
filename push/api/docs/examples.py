"""Examples of requests and answers of version 1 of the API."""

REFUSED = {
    "error": {
        "type": "about:blank",
        "title": "Bad request",
        "status": 400,
        "code": "bad_request",
        "detail": "The body is missing.",
        "retry": False,
    }
}
RECORD = {
    "id": "1043",
    "target": "keys",
    "by": "apikey:1",
    "by_name": "shop (apikey:1)",
    "op": 5,
    "stored": True,
    "created_at": "2026-11-26T05:46:56.880887Z",
    "expires_at": "2026-11-27T05:46:56.880887Z",
    "fan_out": {"state": "done"},
    "totals": {"acknowledged": 1, "pending": 1, "expired": 0, "dropped": 0},
    "count": 2,
    "results": [
        {
            "key": "u1",
            "state": "acknowledged",
            "at": "2026-11-26T05:46:56.888616Z",
            "session": "5938fe7d-1",
            "how": "client",
            "sent": [{"session": "5938fe7d-1", "at": "2026-11-26T05:46:56.888130Z"}],
        },
        {"key": "u2", "state": "pending", "at": "2026-11-26T05:46:56.880887Z", "sent": []},
    ],
}
ROOM_RECORD = {
    "id": "1044",
    "target": "room",
    "by": "apikey:1",
    "by_name": "shop (apikey:1)",
    "op": 5,
    "stored": False,
    "created_at": "2026-11-26T05:46:56.880887Z",
    "expires_at": "2026-11-26T05:51:56.880887Z",
    "fan_out": {"state": "waiting", "partitions": [2]},
    "room": "lobby",
    "written": {"sessions": 12, "nodes": 2},
}
KEPT = {
    "room": "chat-1",
    "epoch": "9f3c2a10",
    "offset": 57,
    "more": True,
    "messages": [
        {"offset": 57, "id": "1043", "op": 5, "at": 1796000000.125, "body": {"text": "hello"}}
    ],
}
SESSION = {
    "id": "5938fe7d-1",
    "node": "5938fe7d",
    "transport": "websocket",
    "address": "192.0.2.1",
    "platform": "web",
    "since": "2026-11-26T05:45:42.500000Z",
}
# Of a key with the scope `each`.
RECORD_OF_DEVICES = {
    **RECORD,
    "id": "1045",
    "count": 1,
    "results": [
        {
            "key": "u1",
            "state": "pending",
            "at": "2026-11-26T05:46:56.880887Z",
            "sent": [{"session": "5938fe7d-1", "at": "2026-11-26T05:46:56.888130Z"}],
            "devices": [
                {
                    "device": "laptop",
                    "state": "pending",
                    "at": "2026-11-26T05:46:56.880887Z",
                    "sent": [],
                },
                {
                    "device": "phone",
                    "state": "acknowledged",
                    "at": "2026-11-26T05:46:56.888616Z",
                    "session": "5938fe7d-1",
                    "how": "client",
                    "sent": [{"session": "5938fe7d-1", "at": "2026-11-26T05:46:56.888130Z"}],
                },
            ],
        }
    ],
}
KEY_STATE = {
    "key": "u1",
    "online": True,
    "last_seen": "2026-11-26T05:46:10.000000Z",
    "sessions": [SESSION],
    "pending": 2,
    "unacknowledged": 1,
    "opened": {
        "at": "2026-11-26T05:45:42.500000Z",
        "node": "node1:8000",
        "transport": "websocket",
        "address": "192.0.2.1",
        "platform": "web",
        "session": "5938fe7d-1",
    },
    "refused": None,
    "closed": {
        "at": "2026-11-26T05:45:40.100000Z",
        "node": "node1:8000",
        "transport": "websocket",
        "address": "192.0.2.1",
        "platform": "web",
        "session": "77aa01ce-9",
        "code": 4000,
        "reason": "server is shutting down",
        "seconds": 3600.5,
    },
}
KEY_OF_DEVICES = {
    **KEY_STATE,
    "devices": [
        {
            "device": "phone",
            "pending": 0,
            "created_at": "2026-11-20T08:00:00.000000Z",
            "seen_at": "2026-11-26T05:45:42.500000Z",
        },
        {
            "device": "laptop",
            "pending": 2,
            "created_at": "2026-11-21T09:30:00.000000Z",
            "seen_at": "2026-11-25T17:02:11.000000Z",
        },
    ],
}
NODE = {
    "id": "5938fe7d",
    "number": 1,
    "name": "node1:8000",
    "since": "2026-11-26T05:45:42.500000Z",
    "sessions": 3,
    "draining": False,
}
TOKEN = {
    "key": "u1",
    "rooms": ["a", "team-*"],
    "join": [],
    "info": {"name": "Ann"},
    "created_at": "2026-11-26T05:46:56.880887Z",
    "expires_at": "2026-11-26T06:46:56.880887Z",
}
DEVICE = {
    "id": "17",
    "provider": "webpush",
    "address": "https://fcm.googleapis.com/…Kx81bQ",
    "name": "Ann's laptop",
    "created_at": "2026-11-26T05:46:56.880887Z",
    "last_seen": "2026-11-26T06:46:56.880887Z",
    "failures": 0,
}
SUBSCRIPTION = {
    "endpoint": "https://fcm.googleapis.com/fcm/send/fJ3x:APA91bKx81bQ",
    "keys": {
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpk"
        "NtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    },
}
NEW_TOKEN = {**TOKEN, "token": "q0m4vJ8mD0m1H3nSx2Yb6c9f-2aZp7Rt"}
PUSH = {"to": {"key": "u1"}, "body": {"hello": "world"}}
LINES = (
    '{"to": {"key": "u1"}, "body": {"n": 1}}\n'
    '{"to": {"room": "lobby"}, "body": "hello"}\n'
    '{"to": {"key": "u1"}}\n'
)
ANSWERED_LINES = (
    '{"id":"1043"}\n{"id":"1044"}\n'
    '{"error":{"type":"about:blank","title":"Bad request","status":400,"code":"bad_request",'
    '"detail":"Object missing required field `body`","retry":false}}\n'
)
METRICS = (
    "# HELP imgo_sessions Sessions open on this node.\n"
    "# TYPE imgo_sessions gauge\nimgo_sessions 3.0\n"
)
