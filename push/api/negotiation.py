"""Content negotiation, which always selects JSON, and answers to OPTIONS."""

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
    """Negotiation that ignores Accept: a tool that requests text/plain can use JSON, but no 406."""

    def select_parser(  # type: ignore[override]
        self,
        request: Request,  # noqa: ARG002
        parsers: Sequence[BaseParser],
    ) -> BaseParser:
        """Return the first parser."""
        return parsers[0]

    def select_renderer(  # type: ignore[override]
        self,
        request: Request,  # noqa: ARG002
        renderers: Sequence[BaseRenderer],
        format_suffix: str | None = None,  # noqa: ARG002
    ) -> tuple[BaseRenderer, str]:
        """Return the first renderer."""
        return renderers[0], renderers[0].media_type


class MethodsAlone(BaseMetadata):
    """Answers to OPTIONS: only the methods, in `Allow`. The schema describes the rest.

    No header allows calls from other sites' pages: an API key does not belong in a browser.
    """

    def determine_metadata(self, request: Request, view: "APIView") -> None:
        """Return None, for an empty answer."""
