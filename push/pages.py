"""Rendering of imgo's own pages from its own templates, whatever the project's `TEMPLATES` are."""

from functools import cache
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.backends.django import DjangoTemplates


@cache
def _engine() -> DjangoTemplates:
    return DjangoTemplates(
        {
            "NAME": "imgo",
            "DIRS": [Path(__file__).resolve().parent / "templates"],
            "APP_DIRS": False,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
            },
        }
    )


def render(
    request: HttpRequest, template: str, context: dict[str, Any], status: int = 200
) -> HttpResponse:
    """Return the page. `template` is a path below `push/templates/push`."""
    page = _engine().get_template(f"push/{template}").render(context, request)
    return HttpResponse(page, status=status)
