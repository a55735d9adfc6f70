"""`{% imgo %}`: what stands on the page, and for whom."""

import json
from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Template
from django.test import RequestFactory

from imgo_site.errors import BadRequest


class Element(HTMLParser):
    """The one element of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)
        ((self.tag, self.attributes),) = self.tags
        assert text.endswith(f"></{self.tag}>"), "nothing is in it or behind it"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def render(arguments: str = "", user: object = None, **context: object) -> str:
    request = RequestFactory().get("/")
    request.user = user or AnonymousUser()
    text = "{% load imgo %}{% imgo " + arguments + " %}"
    return Template(text).render(Context({"request": request, **context}))


@pytest.fixture
def user() -> User:
    return User(pk=7, username="alice")


def test_the_signed_in_user_is_connected_without_a_token(user):
    element = Element(render(user=user))
    assert element.tag == "script"
    assert element.attributes == {
        "type": "module",
        "src": "/static/push/page.js",
        "data-imgo-url": "/sub",
        "data-imgo-name": "7",
        "data-imgo-rooms": "[]",
    }


def test_a_visitor_without_a_token_gets_nothing():
    assert render() == ""
    assert render('rooms="lobby"') == ""
    assert Template("{% load imgo %}{% imgo %}").render(Context()) == ""


def test_a_page_whose_context_has_the_user_alone(user):
    text = Template("{% load imgo %}{% imgo %}").render(Context({"user": user}))
    assert Element(text).attributes["data-imgo-name"] == "7"


def test_a_visitor_with_a_token_is_connected():
    attributes = Element(render("token=one", one="a token")).attributes
    assert attributes["data-imgo-token"] == "a token"
    assert "data-imgo-name" not in attributes


@pytest.mark.parametrize(
    ("arguments", "rooms"),
    [
        ('rooms="lobby"', ["lobby"]),
        ('rooms=" lobby, news,"', ["lobby", "news"]),
        ("rooms=mine", ["team, one", "żółw"]),
    ],
)
def test_rooms_are_a_text_or_a_list(user, arguments, rooms):
    attributes = Element(render(arguments, user, mine=["team, one", "żółw"])).attributes
    assert json.loads(attributes["data-imgo-rooms"]) == rooms


def test_tabs_share_a_connection_under_the_users_key(user):
    assert Element(render("share=True", user)).attributes["data-imgo-share"] == "7"
    attributes = Element(render('share="ann" token="t"')).attributes
    assert attributes["data-imgo-share"] == "ann"
    assert "data-imgo-share" not in Element(render("share=False", user)).attributes


@pytest.mark.parametrize("share", ["True", "5", "0", '""'])
def test_a_share_that_stands_for_no_user_is_a_mistake(share):
    with pytest.raises(ImproperlyConfigured, match="share=True is for"):
        render(f'share={share} token="t"')


def test_transports_are_a_text_or_a_list(user):
    for arguments in ('transports="sse, websocket"', "transports=mine"):
        attributes = Element(render(arguments, user, mine=["sse", "websocket"])).attributes
        assert attributes["data-imgo-transports"] == "sse,websocket"
    with pytest.raises(ImproperlyConfigured, match="'tcp'"):
        render('transports="tcp"', user)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('transports=","', "not ','. Write transports=\"websocket,sse\""),
        ("transports=5", 'such as transports="websocket,sse", not 5'),
        ("rooms=5", 'such as rooms="lobby,news", not 5'),
    ],
)
def test_argument_that_has_no_names_is_a_mistake_with_an_example(user, arguments, text):
    with pytest.raises(ImproperlyConfigured) as mistake:
        render(arguments, user)
    assert text in str(mistake.value)


def test_another_server(user):
    url = "wss://push.example.com/sub"
    attributes = Element(render(f'url="{url}" token="t"', user)).attributes
    assert attributes["data-imgo-url"] == url


def test_a_nonce_for_a_policy_that_wants_one(user):
    assert Element(render("nonce=n", user, n="abc")).attributes["nonce"] == "abc"


def test_everything_is_escaped(user):
    evil = "\"'><script>alert(1)</script>&amp;"
    arguments = "rooms=rooms token=evil url=evil nonce=evil"
    text = render(arguments, user, evil=evil, rooms=[evil])
    attributes = Element(text).attributes
    for name in ("data-imgo-token", "data-imgo-url", "nonce"):
        assert attributes[name] == evil
    assert json.loads(attributes["data-imgo-rooms"]) == [evil]
    assert "<script>" not in text


def test_the_name_is_the_users_key(user, imgo):
    imgo(SESSION_KEY="tests.push.test_template_tag.key_of")
    assert Element(render(user=user)).attributes["data-imgo-name"] == "user-alice"


def key_of(user: User) -> str:
    return f"user-{user.username}"


def test_where_the_cookie_is_not_accepted_it_wants_a_token(user, imgo):
    imgo(SESSION_AUTH=False)
    with pytest.raises(ImproperlyConfigured, match="token"):
        render(user=user)
    assert Element(render('token="t"', user)).attributes["data-imgo-token"] == "t"


@pytest.mark.parametrize("room", ["", "x" * 256, "a\x00", 7])
def test_a_room_that_is_no_name_is_a_mistake(user, room):
    with pytest.raises(BadRequest):
        render("rooms=rooms", user, rooms=[room])
