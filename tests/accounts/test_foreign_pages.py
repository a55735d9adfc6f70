"""A page of another site is not trusted for the network or the browser that it is open in."""

import pytest
from django.test import Client

from accounts.auth_body import AuthBody
from accounts.identity import Facts, authenticate
from imgo_site.errors import NotAuthenticated

OWN = {"host": "testserver", "origin": "http://testserver"}
FOREIGN = {"host": "testserver", "origin": "http://evil.example"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("headers", "status"), [({}, 200), (OWN, 200), (FOREIGN, 401)])
def test_trusted_network_pushes_unless_a_foreign_page_does(imgo, headers, status):
    imgo(LEGACY_TRUSTED_NETWORKS=["127.0.0.0/8"])
    sent = Client().post("/1/push?uid=1", b"1", content_type="text/plain", headers=headers)
    assert sent.status_code == status


async def test_goim_client_is_believed_unless_on_a_foreign_page(imgo):
    imgo(GOIM_TRUSTED=True)
    body = AuthBody(is_goim=True, mid=7)
    for headers in ({}, OWN):
        assert (await authenticate(body, Facts("websocket", headers=headers))).key == "7"
    with pytest.raises(NotAuthenticated, match="another site"):
        await authenticate(body, Facts("websocket", headers=FOREIGN))
