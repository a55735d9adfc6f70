"""No module keeps changing state for itself: what changes has an owner that an entry point makes.

A list of exceptions follows, each with its reason. The scan reads the source. It reports objects
that a module makes when it is imported, unless they are constants, caches of functions, names that
a function rebinds, and tables in upper case that the module changes.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("push", "offline", "accounts", "imgo_site")

# Dotted name, or module, → why the process has it once.
ALLOWED = {
    # The owner of what a process has once, and what it needs before.
    "imgo_site.process_parts.process": "the owner itself: tasks and WSGI requests find parts here",
    "imgo_site.forks._of_parents": "connections that a fork must never close, kept for ever",
    # Libraries keep these by process, or need them when they load a module.
    "imgo_site.asgi": "the ASGI server loads its application by this path",
    "imgo_site.wsgi": "the WSGI server loads its application by this path",
    "imgo_site.celery.app": "Celery loads its application by this path",
    "imgo_site.conf._conf": "reads Django's settings, which a process has once",
    "imgo_site.logs._request_id": "a context variable: each context has a value of its own",
    "imgo_site.replica._source": "a context variable: each context has a value of its own",
    "imgo_site.replica.PRIMARY": "a frozen value",
    "imgo_site.replica._ONLY_PRIMARY": "a frozen value",
    "push.api.docs": "descriptions of the API, which are constants",
    "push.api.docs.generator._lock": "rendering changes globals of drf-spectacular",
    "push.api.docs.generator._rendered": "cache of pure results",
    "push.metrics.definitions": "prometheus_client has one registry a process",
    "push.metrics.exposition._directory": "prometheus_client has one directory a process",
    "push.metrics.database_pool._last": "Django has one pool a process, and so have its metrics",
    "push.metrics.database_pool._updated_at": "Django has one pool a process",
    "push.signals.key_offline": "projects connect receivers to it by this path",
    "push.signals.key_online": "projects connect receivers to it by this path",
    "push.templatetags.imgo.register": "Django finds template tags by this name",
    # Constants that calls make.
    "push.connect.events_request._NOTHING_KNOWN": "a position, which is never changed",
    "push.events.consumer.AUTH": "a frame, which is never changed",
    "imgo_site.room_policies.DEFAULT": "a frozen value",
    "accounts.callers._BIG": "a field of Django, which is never changed",
    "push.server.early_upgrade._PRINTABLE": "bytes, which are never changed",
    "push.session.session_records._WRITE_POSTGRES": "the text of a statement",
    "push.session.session_records._WRITE_SQLITE": "the text of a statement",
    # Pure caches: the same result for the same arguments, whoever calls.
    "accounts.jwts._header": "cache of pure results",
    "accounts.jwts._jwks": "cache of pure results",
    "accounts.jwts._prepared": "cache of pure results",
    "accounts.jwts._public_key": "cache of pure results",
    "imgo_site.ack_scope._scope": "cache of pure results",
    "imgo_site.addresses._parsed": "cache of pure results",
    "imgo_site.browser_requests._is_allowed": "cache of pure results",
    "imgo_site.name_collisions._owners": "what pip has installed, which a process reads once",
    "imgo_site.tracing.tracer": "OpenTelemetry has one tracer provider a process",
    "imgo_site.room_policies._find": "cache of pure results",
    "imgo_site.room_policies._has_presence": "cache of pure results",
    "push.presence.redis_store._sha": "digests of constants",
    "push.pages._engine": "cache of pure results",
    "push.session.event_ids.room_hash": "cache of pure results",
    "push.session.websocket_framing._date": "cache of pure results",
    "push.hooks.http._tls": "cache of pure results",
    "push.online.store._of_vendor": "cache of pure results",
    "push.webhooks.endpoints._read": "cache of pure results",
    "push.session.op_filters._shared": "equal filters as one object, to save memory",
    # The database's threads and loaders, which end with the last node of the process.
    "imgo_site.database_threads.cluster_threads": "no thread before a call or after the last node",
    "imgo_site.database_threads.login_threads": "no thread before a call or after the last node",
    "imgo_site.database_threads.session_threads": "no thread before a call or after the last node",
    "accounts.identity._stored_tokens": "look-ups under way; an AUTHENTICATOR knows no node",
    "offline.node_io.deliveries": "look-ups under way, empty between them",
    "offline.node_io.device_deliveries": "look-ups under way, empty between them",
    "offline.node_io.device_pages": "look-ups under way, empty between them",
    "offline.node_io.history_pages": "look-ups under way, empty between them",
    "offline.node_io.resumed_pages": "look-ups under way, empty between them",
    "offline.node_io.pending_pages": "look-ups under way, empty between them",
    "push.connect.device_names.known_devices": "look-ups under way, empty between them",
    "push.connect.device_names.new_devices": "look-ups under way, empty between them",
    "push.node.streams.new_streams": "look-ups under way, empty between them",
    "push.node.streams.stream_pages": "look-ups under way, empty between them",
    "push.node.streams.stream_states": "look-ups under way, empty between them",
    "push.node.streams.tombstone_offsets": "look-ups under way, empty between them",
    "push.connect.publishing._accepted": "messages being stored, empty between them",
    "push.webhooks.received._writer": "events being written, empty between them",
    # Pushes of all threads of a process, with or without a node.
    "push.accept.group_commit.group_commit": "threads of a process share transactions",
    "push.accept.worker_wakeups.waker": "threads of a process share tasks",
}

# Calls whose result does not change, or holds no state of imgo's.
CONSTANTS = {
    "attrgetter", "cast", "datetime", "float", "format", "frozenset", "getattr", "int", "join",
    "logging.getLogger", "NewType", "nullcontext", "ParamSpec", "range", "re.compile", "str",
    "struct.Struct", "timedelta", "tuple", "TypedDict", "TypeVar", "Range",
}  # fmt: skip
CHANGES = {
    "add", "append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault",
    "update",
}  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
CACHES = {"cache", "lru_cache"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if "migrations" not in path.parts and not name.endswith(("settings", ".gunicorn")):
                yield name.removesuffix(".__init__"), ast.parse(path.read_text())


def of_module(tree: ast.Module) -> Iterator[str]:
    """The names of a module that hold changing state."""
    for node in tree.body:
        for name, value in assigned(node):
            if makes_object(value) or (is_table(value) and not is_constant_name(name)):
                yield name
    for node in ast.walk(tree):
        match node:
            case ast.Global(names=names):
                yield from names
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if any(CACHES & words_of(one) for one in node.decorator_list):
                    yield name
    yield from changed_tables(tree)


def assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((one.id, value) for one in targets if isinstance(one, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
    if not isinstance(node, FUNCTIONS):
        walrus = (one for one in ast.walk(node) if isinstance(one, ast.NamedExpr))
        yield from ((one.target.id, one.value) for one in walrus)


def is_constant_name(name: str) -> bool:
    return name.upper() == name or name in {"__all__", "urlpatterns"}


def is_table(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):  # [0] * 3
        return isinstance(value.op, ast.Mult) and is_table(value.left)
    kinds = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    return isinstance(value, kinds)


def makes_object(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and not is_constant_call(value)


def is_constant_call(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    return name in CONSTANTS or name.rpartition(".")[2] in CONSTANTS


def words_of(node: ast.expr) -> set[str]:
    return {one.id if isinstance(one, ast.Name) else one.attr for one in ast.walk(node)
            if isinstance(one, ast.Name | ast.Attribute)}  # fmt: skip


def changed_tables(tree: ast.Module) -> Iterator[str]:
    """Tables of the module that one of its functions changes."""
    tables = {name for node in tree.body for name, value in assigned(node) if is_table(value)}
    for function in (one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)):
        for node in ast.walk(function):
            match node:
                case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                    found = name
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)):
                    found = name if attr in CHANGES else ""
                case _:
                    continue
            if found in tables:
                yield found


def is_allowed(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in ALLOWED)


@cache
def scanned() -> set[str]:
    return {f"{module}.{name}" for module, tree in modules() for name in of_module(tree)}


def test_scan_reports_each_kind_of_state():
    source = """
made = Guard()
names = []
LIMIT = 3
TABLE = {1: 2}
CHANGED = {}
FINE: Final = frozenset({1})
take = (kept := Keeper()).take
def use():
    global LIMIT
    CHANGED.setdefault(1, 2)
@lru_cache(maxsize=1)
def get(): ...
@cached_property
def fine(): ...
"""
    assert set(of_module(ast.parse(source))) == {"made", "names", "CHANGED", "kept", "LIMIT", "get"}


def test_modules_keep_no_changing_state_but_the_allowed():
    assert sorted(name for name in scanned() if not is_allowed(name)) == []


def test_allowed_names_are_still_there():
    found = scanned()
    unused = [one for one in ALLOWED if not any(f"{name}.".startswith(f"{one}.") for name in found)]
    assert unused == []
