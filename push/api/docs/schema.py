"""drf-spectacular's view of an operation, read from the tables in this package.

A view without an entry is an error of `manage.py spectacular --fail-on-warn`.
"""

from dataclasses import fields
from typing import Any

from drf_spectacular.drainage import error
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiRequest,
    OpenApiResponse,
)

from accounts.authentication import QUERY_PARAMETER, SCHEME
from accounts.models import SCOPES
from imgo_site.conf import ImgoSettings, conf
from push.api import answers, legacy_answers
from push.api.base import V1View
from push.api.docs import devices, goim, imgo, rooms, v1
from push.api.docs.operation import (
    PROBLEM,
    Answer,
    Content,
    Operation,
    components,
    resolved,
    schema_of,
)
from push.api.goim import GoimView
from push.api.legacy import LegacyView, MessagesView
from push.api.problems import RET_INTERNAL, RET_PARAMETER, RET_TOKEN, RETRY_AFTER

OPERATIONS = (
    v1.OPERATIONS | rooms.OPERATIONS | devices.OPERATIONS | imgo.OPERATIONS | goim.OPERATIONS
)
HEADER, QUERY = "ApiKeyHeader", "ApiKeyQuery"  # the security schemes

# (title, code, detail of the example) by status.
PROBLEMS = {
    400: ("Bad request", "bad_request", "limit must be a whole number from 1 to 1000."),
    401: ("Not authenticated", "not_authenticated", "This API key is not valid, or was revoked."),
    403: ("Forbidden", "forbidden", "This API key lacks the scope 'push'."),
    404: ("Not found", "not_found", "The key 'u1' has no token."),
    413: ("Too large", "too_large", "A request has at most 16777216 bytes."),
    503: ("Unavailable", "unavailable", "The database cannot be reached; nothing was accepted."),
}
RETS = {400: RET_PARAMETER, 401: RET_TOKEN, 403: RET_TOKEN, 404: 1001, 413: RET_PARAMETER}


def with_settings(text: str) -> str:
    """Return `text` with each setting's name in braces replaced by its value."""
    names = [item.name for item in fields(ImgoSettings)]
    for name in names:
        if f"{{{name}}}" in text:
            text = text.replace(f"{{{name}}}", str(getattr(conf, name)))
    return text


class ImgoSchema(AutoSchema):
    """Schema of a view, from the tables instead of drf-spectacular's guesses."""

    @property
    def schema_hints(self) -> Operation | None:
        """Return the operation's entry in the tables, None without one."""
        return OPERATIONS.get((type(self.view), self.method))

    @property
    def scopes(self) -> tuple[str, ...]:
        """Return the scopes of which the operation needs one; () if it needs no API key."""
        scope = getattr(self.view, "scopes", {}).get(self.method, ())
        return (scope,) if isinstance(scope, str) else tuple(scope)

    @property
    def scope(self) -> str:
        """Return the scopes as text for Markdown, without the outer marks."""
        return "` or `".join(self.scopes)

    def is_excluded(self) -> bool:
        """Return True, and report an error, if the tables have no entry for the operation."""
        if self.schema_hints is None:
            error(f"{self.method} {self.path} is not described in push/api/docs.")
        return self.schema_hints is None

    def get_operation_id(self) -> str:
        """Return the operation's id, for programs."""
        assert self.schema_hints is not None
        return self.schema_hints.id

    def get_tags(self) -> list[str]:
        """Return the section of the page that the operation belongs to."""
        assert self.schema_hints is not None
        return [self.schema_hints.tag]

    def get_summary(self) -> str:
        """Return the operation's title."""
        assert self.schema_hints is not None
        return self.schema_hints.summary

    def get_description(self) -> str:  # type: ignore[override]
        """Return a description of the operation, with the scope that it needs."""
        assert self.schema_hints is not None
        needs = f"Scope: `{self.scope}`." if self.scope else "No API key is needed."
        return with_settings(f"{self.schema_hints.more}\n\n{needs}".strip())

    def get_override_parameters(self) -> Any:
        """Return the operation's parameters, and the headers of its errors."""
        assert self.schema_hints is not None
        parameters = [
            OpenApiParameter(
                parameter.name,
                resolved(parameter.schema),
                parameter.place,
                required=parameter.is_required,
                description=with_settings(parameter.description),
                examples=[OpenApiExample("example", parameter.example)],
            )
            for parameter in self.schema_hints.parameters
        ]
        if self.scope and not isinstance(self.view, LegacyView):
            parameters += HEADERS
        return parameters

    def get_auth(self) -> list[dict[str, Any]]:
        """Return both ways to send an API key, with the operation's scope; {} if it needs none."""
        ways: list[dict[str, Any]] = [
            {way: [scope]} for way in (HEADER, QUERY) for scope in self.scopes
        ]
        return ways or [{}]

    def get_request_serializer(self) -> Any:
        """Return the request bodies that the operation reads, by media type."""
        assert self.schema_hints is not None
        return {
            content.media_type: OpenApiRequest(schema_of(content.kind), examples=_examples(content))
            for content in self.schema_hints.request
        }

    def get_response_serializers(self) -> Any:
        """Return the operation's answers by status and media type: successes and errors."""
        assert self.schema_hints is not None
        responses: dict[Any, OpenApiResponse] = {}
        for status, answer in {
            **self.schema_hints.answers,
            **self._errors(self.schema_hints),
        }.items():
            text = with_settings(answer.description)
            if not answer.contents:
                responses[status] = OpenApiResponse(description=text)
            for content in answer.contents:
                responses[status, content.media_type] = OpenApiResponse(
                    schema_of(content.kind), text, _examples(content, status)
                )
        return responses

    def _errors(self, operation: Operation) -> dict[int, Answer]:
        """Return the error answers by status, in the form of the API that the view belongs to."""
        texts = dict(operation.errors)
        if isinstance(self.view, V1View):
            texts.setdefault(400, "An unknown parameter in the query.")
        if self.scope:
            texts |= {
                401: "No API key, or one that is not valid.",
                403: f"The API key lacks the scope `{self.scope}`.",
            }
        if self.scope or isinstance(self.view, MessagesView):
            texts[503] = "The database or Redis cannot be reached; nothing was accepted."
        make = _problem
        if isinstance(self.view, GoimView):
            make = _code
        elif isinstance(self.view, LegacyView):
            make = _ret
        return {status: make(status, text) for status, text in sorted(texts.items())}

    def get_operation(self, *args: Any) -> Any:
        """Return the complete operation, with `required` of its request body."""
        operation = super().get_operation(*args)
        if operation and "requestBody" in operation and self.schema_hints:
            operation["requestBody"]["required"] = self.schema_hints.needs_body
        return operation


HEADERS = [
    OpenApiParameter(
        "WWW-Authenticate", str, OpenApiParameter.HEADER, response=[401], description=SCHEME
    ),
    OpenApiParameter(
        "Retry-After",
        int,
        OpenApiParameter.HEADER,
        response=[503],
        description=f"{RETRY_AFTER} seconds.",
    ),
]


def _examples(content: Content, status: int | None = None) -> list[OpenApiExample]:
    return [
        OpenApiExample(
            name,
            value,
            media_type=content.media_type,
            request_only=status is None,
            response_only=status is not None,
            status_codes=None if status is None else [str(status)],
        )
        for name, value in content.examples.items()
    ]


def _problem(status: int, text: str) -> Answer:
    title, code, detail = PROBLEMS[status]
    example = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "retry": status == 503,
    }
    return Answer(text, (Content(answers.Problem, {code: example}, PROBLEM),))


def _ret(status: int, text: str) -> Answer:
    example = {"ret": RETS.get(status, RET_INTERNAL)}
    return Answer(text, (Content(legacy_answers.Ret, {"error": example}),))


def _code(status: int, text: str) -> Answer:
    example = {"code": -status, "message": PROBLEMS[status][2]}
    return Answer(text, (Content(goim.Code, {"error": example}),))


SECURITY = {
    HEADER: {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": f"`{SCHEME} <key>`: the word and a space belong to the value.",
    },
    QUERY: {
        "type": "apiKey",
        "in": "query",
        "name": QUERY_PARAMETER,
        "description": "For tools that cannot set a header.",
    },
}


def add_types(result: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with the components that the operations refer to, and the scopes."""
    result["components"] = {
        "schemas": components(v1.TYPES + rooms.TYPES + devices.TYPES + imgo.TYPES + goim.TYPES),
        "securitySchemes": SECURITY,
    }
    result["tags"] = [{"name": name} for name in (*v1.TAGS, devices.TAG, imgo.TAG, goim.TAG)]
    scopes = "\n".join(f"- `{name}`: {text}" for name, text in SCOPES.items())
    result["info"]["description"] = f"{DESCRIPTION}\n\nScopes of an API key:\n\n{scopes}"
    return result


DESCRIPTION = """\
Push to the sessions of keys, to rooms and to everyone; see what became of it; manage tokens.

Every call needs an API key with the scope that it names: `Authorization: Api-Key <key>`, or
`?apikey=<key>`. `manage.py apikey NAME --scope push` makes one.

Errors are problem details (RFC 9457), `application/problem+json`; `retry` says whether the same
call may succeed later. On the paths of imgo (Go) they are `{"ret": ...}`, on those of goim
`{"code": ...}`.

OPTIONS names the methods of a path in `Allow`. No page of another site may call this API: an API
key is nothing to have in a browser."""
