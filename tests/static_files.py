"""Static files of the tests' site, which WhiteNoise describes once for each kind of site.

WhiteNoise reads every static file's size and date when its middleware is made. A server does that
once. In tests each client makes the middleware anew, which would be most of what a test costs.
"""

from typing import Any

from django.conf import settings
from whitenoise.middleware import WhiteNoiseMiddleware

_descriptions: dict[str, dict[str, Any]] = {}


def install() -> None:
    """Let middleware for the same settings share the descriptions of the files."""
    read_files = WhiteNoiseMiddleware.add_files_from_finders

    def add_files(self: WhiteNoiseMiddleware) -> None:
        kind = repr((self.static_prefix, self.max_age, settings.STORAGES, settings.INSTALLED_APPS))
        if kind not in _descriptions:
            before = set(self.files)
            read_files(self)
            _descriptions[kind] = {
                url: file for url, file in self.files.items() if url not in before
            }
        self.files.update(_descriptions[kind])

    WhiteNoiseMiddleware.add_files_from_finders = add_files
