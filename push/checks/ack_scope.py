"""Checks of `ACK_SCOPE`: whose acknowledgement settles a message."""

from collections.abc import Iterator

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004

from imgo_site.ack_scope import problems
from imgo_site.conf import conf
from imgo_site.names import hiding_pattern
from push.checks.reading import with_settings


@register
@with_settings
def check_ack_scope() -> Iterator[CheckMessage]:
    """E059: an entry of ACK_SCOPE that cannot work; W049: an entry without effect."""
    earlier: list[str] = []
    for pattern, scope in conf.ACK_SCOPE.items():
        for problem, hint in problems(pattern, scope):
            yield Error(
                f"The scope of {pattern!r} in ACK_SCOPE {problem}.", hint=hint, id="imgo.E059"
            )
        if before := hiding_pattern(earlier, str(pattern)):
            yield Warning(
                f"The scope of {pattern!r} in ACK_SCOPE never decides: {before!r} stands before it "
                "and matches the same keys.",
                hint="Put the narrower pattern first.",
                id="imgo.W049",
            )
        earlier.append(str(pattern))
