"""Bytes of a response that ends its connection, for servers that refuse a request themselves."""

from django.http import HttpResponseBase


def closing_bytes(response: HttpResponseBase) -> bytes:
    """Return a response as HTTP/1.1, with its length and the announcement that it is the last."""
    body = bytes(getattr(response, "content", b""))
    response["Connection"] = "close"
    response["Content-Length"] = str(len(body))
    status = f"HTTP/1.1 {response.status_code} {response.reason_phrase}\r\n".encode("latin1")
    return status + response.serialize_headers() + b"\r\n\r\n" + body
