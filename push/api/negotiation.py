"""Content negotiation: there is nothing to negotiate, JSON is what we speak; and OPTIONS."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rest_framework.metadata import BaseMetadata
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

if TYPE_CHECKING:  # DRF's views import this module
    from rest_framework.views import APIView


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


class MethodsAlone(BaseMetadata):
    """OPTIONS is answered with the methods in `Allow`, and nothing else: the rest is the schema's.

    No header allows calls from other sites' pages: an API key is nothing to have in a browser.
    """

    def determine_metadata(self, request: Request, view: "APIView") -> None:
        """Nothing: an empty answer."""
