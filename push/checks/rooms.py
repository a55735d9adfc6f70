"""Checks of `ROOMS`: the policies of rooms."""

from collections.abc import Iterator

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004

from imgo_site.conf import conf
from imgo_site.names import hiding_pattern
from imgo_site.room_policies import members_without_effect, problems
from push.checks.reading import with_settings


@register
@with_settings
def check_rooms() -> Iterator[CheckMessage]:
    """E049: an entry of ROOMS that cannot work; W041: an entry, or a part of it, without effect."""
    earlier: list[str] = []
    for pattern, entry in conf.ROOMS.items():
        wrong = list(problems(pattern, entry))
        for problem, hint in wrong:
            yield Error(f"The policy of {pattern!r} in ROOMS {problem}.", hint=hint, id="imgo.E049")
        for text, hint in () if wrong else members_without_effect(entry):
            yield Warning(f"The policy of {pattern!r} in ROOMS {text}.", hint=hint, id="imgo.W041")
        if before := hiding_pattern(earlier, str(pattern)):
            yield Warning(
                f"The policy of {pattern!r} in ROOMS never decides: {before!r} stands before it "
                "and matches the same rooms.",
                hint="Put the narrower pattern first.",
                id="imgo.W041",
            )
        earlier.append(str(pattern))
