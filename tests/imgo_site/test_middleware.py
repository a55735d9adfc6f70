"""What the outermost middleware does with answers that come in pieces."""

import os
from pathlib import Path
from typing import Any

import pytest
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse

from imgo_site import logs
from imgo_site.middleware import FILE_PIECE, RequestMiddleware


async def answer_of(request: HttpRequest, response: Any) -> Any:
    async def view(_: HttpRequest) -> Any:
        return response

    return await RequestMiddleware(view)(request)


async def test_file_on_asgi_is_read_as_far_as_it_is_sent(async_rf: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 * FILE_PIECE + 1))
    with path.open("rb", buffering=0) as file:
        answer = await answer_of(async_rf.get("/"), FileResponse(file))
        pieces = aiter(answer)
        first = await anext(pieces)
        assert file.tell() == len(first) == FILE_PIECE
        rest = [piece async for piece in pieces]
        assert [len(piece) for piece in rest] == [FILE_PIECE, FILE_PIECE, 1]
        assert first + b"".join(rest) == path.read_bytes()
        answer.close()
        assert file.closed


async def test_stream_on_asgi_is_made_as_far_as_it_is_sent(async_rf: Any) -> None:
    made = []

    def numbers() -> Any:
        for n in range(3):
            made.append((n, logs.request_id()))
            yield f"{n}"

    request = async_rf.get("/", headers={"X-Request-ID": "abc"})
    answer = await answer_of(request, StreamingHttpResponse(numbers()))
    pieces = aiter(answer)
    assert made == []
    for n in range(3):
        assert await anext(pieces) == b"%d" % n
        assert made[-1] == (n, "abc")
        assert len(made) == n + 1
    assert [piece async for piece in pieces] == []


@pytest.mark.parametrize(("escapes", "count"), [(1_000, 1), (1_001, 0)])
def test_cookies_with_too_many_escapes_are_not_read(rf: Any, escapes: int, count: int) -> None:
    """The standard library may take the square of their number."""
    seen = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(request.COOKIES)
        return HttpResponse()

    cookie = "a=" + '"' + "\\\\" * (escapes // 2) + "\\" * (escapes % 2) + '"'
    RequestMiddleware(view)(rf.get("/", headers={"cookie": cookie}))
    assert [len(cookies) for cookies in seen] == [count]
