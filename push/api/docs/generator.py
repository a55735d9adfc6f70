"""Generator of the schema of imgo's paths, without the project's drf-spectacular settings.

`manage.py spectacular --generator-class push.api.docs.generator.Generator` writes it to a file.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from django.utils.encoding import force_bytes
from drf_spectacular.generators import EndpointEnumerator, SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer2
from drf_spectacular.settings import SPECTACULAR_DEFAULTS, spectacular_settings
from rest_framework.settings import perform_import
from rest_framework.views import APIView

from imgo_site.conf import load
from push.api import urls
from push.api.docs.schema import ImgoSchema, add_types

_RENDERERS = {"json": OpenApiJsonRenderer2, "yaml": OpenApiYamlRenderer2}
_FOR_VIEWS = ("SERVE_", "DEFAULT_GENERATOR_CLASS")  # settings that the generator does not read
SETTINGS: dict[str, Any] = {
    **{k: v for k, v in SPECTACULAR_DEFAULTS.items() if not k.startswith(_FOR_VIEWS)},
    "TITLE": "imgo",
    "VERSION": "1",  # of the API
    "OAS_VERSION": "3.1.0",  # msgspec writes its dialect of JSON Schema
    "LICENSE": {"name": "MIT"},
    "SCHEMA_PATH_PREFIX": "",
    "SORT_OPERATIONS": False,  # as in push/api/urls.py
    "SORT_OPERATION_PARAMETERS": False,
    "POSTPROCESSING_HOOKS": [],
}
# drf-spectacular's settings are global: two threads that patch them would interfere.
_lock = threading.Lock()


class _Endpoints(EndpointEnumerator):
    def should_include_endpoint(self, path: str, callback: Any) -> bool:  # noqa: ARG002
        return hasattr(callback, "cls")


class Generator(SchemaGenerator):
    """Generator for only imgo's views, which have no schema class of their own."""

    endpoint_inspector_cls = _Endpoints

    def __init__(self, **options: Any) -> None:
        options["patterns"] = [*urls.PROBES, *urls.urlpatterns]
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.coerce_path_pk = False

    def create_view(self, callback: Any, method: str, request: Any = None) -> APIView:
        """Return the view with our schema class on it."""
        view: APIView = super().create_view(callback, method, request)  # type: ignore[no-untyped-call]
        view.schema = schema = ImgoSchema()
        schema.view = view
        return view

    def get_schema(self, request: Any = None, public: bool = False) -> dict[str, Any]:  # noqa: ARG002
        """Return the schema, with the values of imgo's settings in it."""
        with _only_our_settings():
            return add_types(super().get_schema(None, public=True))  # type: ignore[no-untyped-call]


@contextmanager
def _only_our_settings() -> Iterator[None]:
    """Replace drf-spectacular's settings, without reading the project's, which may be unusable."""
    attributes = vars(spectacular_settings)
    before = dict(attributes)
    for name, value in SETTINGS.items():
        imports = name in spectacular_settings.import_strings
        attributes[name] = perform_import(value, name) if imports else value
    try:
        yield
    finally:
        attributes.clear()
        attributes.update(before)


def rendered(kind: str, prefix: str) -> bytes:
    """Return the schema as `json` or `yaml`.

    The result is cached: rendering may take seconds, and anyone may request the schema. `prefix`
    is the path below which imgo is served; "" for none.
    """
    with _lock:
        return _rendered(kind, prefix, repr(load()))


@lru_cache(maxsize=8)
def _rendered(kind: str, prefix: str, settings: str) -> bytes:  # noqa: ARG001 - part of the cache's key
    schema = Generator().get_schema()
    if prefix:
        schema["servers"] = [{"url": prefix}]
    return force_bytes(_RENDERERS[kind]().render(schema))
