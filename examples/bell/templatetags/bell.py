"""`{% bell %}`: the bell of who is signed in."""

from typing import Any

from django import template

from examples.bell import services
from imgo_site.conf import conf

register = template.Library()


@register.inclusion_tag("bell/bell.html", takes_context=True)
def bell(context: dict[str, Any]) -> dict[str, Any]:
    """With its count from the first moment: scripts come later, and may not come at all."""
    has_devices = bool(conf.WEBPUSH_PRIVATE_KEY)
    return {**services.state(context["user"]), "has_devices": has_devices}
