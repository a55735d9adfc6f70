"""Content negotiation: there is nothing to negotiate, JSON is what we speak."""

from collections.abc import Sequence

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class JsonAlways(BaseContentNegotiation):
    """Ignores Accept: an old tool that asks for text/plain is better off with JSON than a 406."""

    def select_parser(  # type: ignore[override]
        self,
        request: Request,  # noqa: ARG002
        parsers: Sequence[BaseParser],
    ) -> BaseParser:
        """The first one."""
        return parsers[0]

    def select_renderer(  # type: ignore[override]
        self,
        request: Request,  # noqa: ARG002
        renderers: Sequence[BaseRenderer],
        format_suffix: str | None = None,  # noqa: ARG002
    ) -> tuple[BaseRenderer, str]:
        """The first one."""
        return renderers[0], renderers[0].media_type
