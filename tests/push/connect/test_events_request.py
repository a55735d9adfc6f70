"""The request for a stream of events: its query, its token, and its Last-Event-ID."""

import pytest

from accounts.auth_body import RoomRequest
from imgo_site.errors import BadRequest, NotAuthenticated
from push.connect.events_request import read_events_request
from push.session.event_ids import event_id


def test_the_query_says_what_an_auth_body_says():
    query = b"rooms=a%2Cb&rooms=c%20d&rooms=a%2Cb&since=7&ack=1&token=t&platform=web&other=1"
    body, request = read_events_request(query, {})
    assert (body.rooms, body.since, body.ack, body.token) == (("a,b", "c d"), 7, True, "t")
    assert (body.platform, body.names) == ("web", True)
    assert request.of_rooms(["a,b"]) == {"a,b": RoomRequest()}


def test_the_header_is_taken_before_the_query():
    body, _ = read_events_request(b"token=second", {"authorization": "bearer first"})
    assert body.token == "first"


def test_a_rewind_is_asked_of_every_room_with_history(imgo):
    imgo(ROOMS={"a*": {"history": 5}})
    _, request = read_events_request(b"rooms=a&rewind=3", {})
    assert request.of_rooms(["a", "a2", "b"]) == {
        "a": RoomRequest(rewind=3),
        "a2": RoomRequest(rewind=3),
        "b": RoomRequest(),
    }


def test_a_position_is_taken_before_a_rewind_and_since(imgo):
    imgo(ROOMS={"b": {"history": 5}})
    last = event_id("a", "ep", 4, 9.5).decode()
    _, request = read_events_request(b"rewind=3&since=5", {"last-event-id": last})
    assert request.positions is not None
    assert request.positions.at == 9.5
    assert request.of_rooms(["a", "b"]) == {
        "a": RoomRequest("ep", 4),
        "b": RoomRequest(rewind=3),
    }


@pytest.mark.parametrize("last", ["2,0", "garbage", "1,0,x"])
def test_an_id_that_cannot_be_used_is_no_position_at_all(last):
    body, request = read_events_request(b"rewind=3&since=5", {"last-event-id": last})
    assert (body.since, request.is_lost) == (5, True)
    assert request.of_rooms(["a"]) == {"a": RoomRequest("", 0)}


@pytest.mark.parametrize(
    "query",
    [
        b"room=a",
        b"rooms=",
        b"rooms=%00",
        b"rooms=" + b"x" * 1_000,
        b"&".join(b"rooms=%d" % n for n in range(101)),
        b"&".join(b"x=%d" % n for n in range(1_001)),
        b"since=-1",
        b"since=9223372036854775808",
        b"since=" + b"9" * 5_000,
        b"rewind=x",
        b"rewind=100001",
        b"ack=yes",
        b"token=a&token=b",
        b"token=" + b"x" * 8_193,
        b"rooms=%ff",
        b"rooms=\xff",
    ],
)
def test_a_mistake_in_the_query_is_refused(query):
    with pytest.raises(BadRequest):
        read_events_request(query, {})


@pytest.mark.parametrize("most", [8192, 9000])
def test_a_token_may_be_as_long_as_an_auth_body(imgo, most):
    imgo(MAX_AUTH_BODY=most)
    body, _ = read_events_request(b"", {"authorization": "Bearer " + "x" * most})
    assert len(body.token) == most
    with pytest.raises(BadRequest, match=f"{most + 1} bytes, and may have {most}"):
        read_events_request(b"", {"authorization": "Bearer " + "x" * (most + 1)})


def test_credentials_of_another_kind_are_refused():
    with pytest.raises(NotAuthenticated):
        read_events_request(b"token=t", {"authorization": "Basic dTpw"})
