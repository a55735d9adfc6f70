"""A project whose own API has everything of DRF set, each value one that would hurt ours."""

from tests.hosts.base import *  # noqa: F403

HOSTILE = "tests.hosts.hostile"
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [f"{HOSTILE}.Everybody"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.BrowsableAPIRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.FileUploadParser"],
    "DEFAULT_THROTTLE_CLASSES": [f"{HOSTILE}.Never"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": f"{HOSTILE}.NotAcceptable",
    "DEFAULT_METADATA_CLASS": "rest_framework.metadata.SimpleMetadata",
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
    "DEFAULT_VERSION": "7",
    "ALLOWED_VERSIONS": ["7"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.CursorPagination",
    "PAGE_SIZE": 1,
    "DEFAULT_FILTER_BACKENDS": ["rest_framework.filters.SearchFilter"],
    "DEFAULT_SCHEMA_CLASS": "rest_framework.schemas.openapi.AutoSchema",
    "EXCEPTION_HANDLER": f"{HOSTILE}.fine",
    "UNAUTHENTICATED_USER": f"{HOSTILE}.caller",
    "UNAUTHENTICATED_TOKEN": f"{HOSTILE}.caller",
    "FORMAT_SUFFIX_KWARG": "key",
    "URL_FORMAT_OVERRIDE": "limit",
    "COMPACT_JSON": False,
    "UNICODE_JSON": False,
    "STRICT_JSON": False,
    "COERCE_DECIMAL_TO_STRING": False,
    "DATETIME_FORMAT": "%s",
    "NUM_PROXIES": 9,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "the project's",
    "SERVE_PUBLIC": False,
    "SCHEMA_PATH_PREFIX_INSERT": "/elsewhere",
    "CAMELIZE_NAMES": True,
    "POSTPROCESSING_HOOKS": [f"{HOSTILE}.nothing"],
    "PREPROCESSING_HOOKS": [f"{HOSTILE}.nothing"],
    "SWAGGER_UI_DIST": "//elsewhere.example",
}
