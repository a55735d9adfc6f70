"""The operations that a frame may carry."""

from enum import IntEnum

FIRST_OWN_OP = 1000  # lowest op of an application; the protocol owns the ops below


class Op(IntEnum):
    """Operation of a frame. The numbers are goim's, for its clients; 18 to 253 are imgo's own.

    A reply's number is its request's plus one. The reply to SEND is MESSAGE; ACK has no reply.
    PRESENCE_DIFF, STREAM_GAP, RETRACTION and READ come from the server without a request.
    """

    HANDSHAKE = 0
    HANDSHAKE_REPLY = 1
    HEARTBEAT = 2
    HEARTBEAT_REPLY = 3
    SEND = 4
    MESSAGE = 5
    DISCONNECT = 6
    AUTH = 7
    AUTH_REPLY = 8
    RAW = 9
    CHANGE_ROOM = 12
    CHANGE_ROOM_REPLY = 13
    SUB = 14
    SUB_REPLY = 15
    UNSUB = 16
    UNSUB_REPLY = 17
    JOIN = 18
    JOIN_REPLY = 19
    LEAVE = 20
    LEAVE_REPLY = 21
    ACK = 22
    HISTORY = 24
    HISTORY_REPLY = 25
    PRESENCE = 26
    PRESENCE_REPLY = 27
    PRESENCE_DIFF = 28
    STREAM_GAP = 29
    RETRACTION = 30
    READ = 31
    PUBLISH = 32
    PUBLISH_REPLY = 33
    TEST = 254
    TEST_REPLY = 255
