"""imgo in somebody's project: the project's settings neither open nor break it, nor it theirs."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import fork_server

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = {"DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"}
MOUNTS = {"drf": "", "site": "", "users": "/push"}
PREFIXES = {"drf": "", "site": "", "users": "/site/push"}
EXPECTED = {"none": {401}, "wrong": {401}, "empty": {403}, "without": {403}}


def start(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in SERVICES}
    own = {
        "IMGO_DATA_DIR": str(directory / "data"),
        "HOST_DATABASE": str(directory / "host.db"),
        "PYTHONPATH": f"{directory}:{ROOT}",
        "DJANGO_SECRET_KEY": "s" * 40,
    }
    return fork_server.run(arguments, directory, kept | own | environment, timeout=120)


def check(directory: Path, settings: str, *options: str) -> str:
    """What `check` says of a project; a failed one, without a traceback of ours."""
    done = start(directory, "-m", "django", "check", *options, "--settings", settings)
    assert done.returncode == 1
    return done.stdout + done.stderr


def walk(directory: Path, name: str, part: str) -> Any:
    """What the walk through a project of this directory found; `part`: `pages` or `matrix`."""
    words = ("-m", "tests.hosts.walk", part, MOUNTS[name])
    done = start(directory, *words, DJANGO_SETTINGS_MODULE=f"tests.hosts.{name}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=MOUNTS)
def host(request, tmp_path_factory) -> tuple[str, dict[str, Any]]:
    """(a project of this directory, what the walk through its pages found)."""
    directory = tmp_path_factory.mktemp(request.param)
    return request.param, walk(directory, request.param, "pages")


@pytest.mark.long
@pytest.mark.parametrize("name", MOUNTS)
def test_scopes_in_a_project_are_those_of_imgo(tmp_path, name):
    matrix = walk(tmp_path, name, "matrix")
    assert len(matrix) >= 5 * 29
    for method, path, key, status, kind in matrix:
        told = f"{method} {path} with the key {key!r}: {status} {kind}"
        if key == "only":
            assert status in {200, 201, 202, 204, 400, 404}, told
        else:
            assert {status} == EXPECTED[key], told
            is_ours = path.startswith(("/api/", "/metrics"))
            assert kind == ("application/problem+json" if is_ours else "application/json"), told


@pytest.mark.long(but=["users"])
def test_push_in_a_project_is_accepted_and_not_cached(host):
    _, found = host
    pushed = found["pushed"]
    assert (pushed["status"], pushed["type"], pushed["cache"]) == (
        202,
        "application/json",
        "no-store",
    )
    assert int(json.loads(pushed["text"])["id"]) > 0


@pytest.mark.long(but=["users"])
def test_schema_in_a_project_is_the_schema_of_imgo(host):
    name, found = host
    schema = json.loads(found["open"]["/api/schema/"]["text"])
    assert schema["info"]["title"] == "imgo"
    assert "/api/v1/pushes" in schema["paths"]
    assert schema.get("servers", [{"url": ""}]) == [{"url": PREFIXES[name]}]


@pytest.mark.long(but=["users"])
def test_pages_in_a_project_are_for_its_staff(host):
    name, found = host
    opened, prefix = found["open"], PREFIXES[name]
    assert opened["/healthz"]["status"] == opened["/readyz"]["status"] == 200
    assert opened["/dashboard/data"]["status"] == 401
    assert opened["/dashboard/"]["location"] == f"{prefix}/admin/login/?next={prefix}/dashboard/"
    page = opened["/api/docs/"]["text"]
    assert f'data-schema="{prefix}/api/schema/"' in page
    for path, answer in found["staff"].items():
        assert answer["status"] == (403 if path == "without CSRF token" else 200), path
        assert "INVALID" not in answer["text"], path
    assert f'href="{prefix}/dashboard/keys"' in found["staff"]["/dashboard/"]["text"]


@pytest.mark.long(but=["users"])
def test_demo_in_a_database_of_the_project_is_off(host):
    _, found = host
    assert found["open"]["/"]["status"] == 404


CHECKS = """
import json, django
django.setup()
from django.core.checks import WARNING, run_checks
from django.core.management import call_command
call_command("migrate", verbosity=0)
print(json.dumps([found.id for found in run_checks() if found.level >= WARNING]))
"""


@pytest.mark.parametrize("name", MOUNTS)
def test_checks_of_a_project_name_only_what_it_lacks(tmp_path, name):
    done = start(tmp_path, "-c", CHECKS, DJANGO_SETTINGS_MODULE=f"tests.hosts.{name}")
    ids = json.loads(done.stdout)
    assert sorted(ids) == (["imgo.W031", "imgo.W032"] if name == "site" else [])


def test_apps_without_imgos_settings_are_told_by_a_check(tmp_path):
    said = check(tmp_path, "tests.hosts.bare")
    assert "Traceback" not in said
    for id_ in ("imgo.E008", "imgo.E020", "imgo.E021", "imgo.E022"):
        assert f"({id_})" in said
    assert "INSTALLED_APPS lacks channels, django.contrib.admin" in said
    assert "models.W042" not in said


ADDED = "from imgo_site.settings import *\nINSTALLED_APPS += ['{}']\n"


@pytest.mark.parametrize("name", ["accounts", "offline", "push"])
def test_package_of_the_project_with_our_name_is_told(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / "project.py").write_text(ADDED.format(name))
    last = check(tmp_path, "project").strip().splitlines()[-1]
    assert f"There are two packages named {name!r}" in last
    assert str(tmp_path) in last


def test_app_of_the_project_with_our_label_is_told(tmp_path):
    (tmp_path / "shop" / "accounts").mkdir(parents=True)
    for place in ("shop", "shop/accounts"):
        (tmp_path / place / "__init__.py").touch()
    (tmp_path / "project.py").write_text(ADDED.format("shop.accounts"))
    last = check(tmp_path, "project").strip().splitlines()[-1]
    assert "'shop.accounts' and imgo's 'accounts'" in last
    assert "label = 'project_accounts'" in last


CELERY = """
import django
django.setup()
from celery import Celery, shared_task
from imgo_site.celery import app as ours
from push.tasks import fan_out

project = Celery("project")
project.config_from_object("django.conf:settings", namespace="CELERY")

@shared_task
def work():
    pass

assert work.app is project, work.app
assert fan_out.app is ours
assert "push.fan_out" not in project.tasks
assert project.conf.broker_transport_options == {}
assert not project.conf.task_acks_late
assert project.conf.worker_prefetch_multiplier == 4
assert project.conf.task_default_queue == "theirs"
assert ours.conf.task_default_queue == "imgo.push.0"
assert ours.conf.task_serializer == "json"
assert ours.conf.task_time_limit is None
assert ours.conf.task_routes is None
assert ours.conf.broker_write_url == "memory://"
assert ours.conf.task_always_eager
print("ok")
"""


def test_celery_of_a_project_and_ours_have_nothing_in_common(tmp_path):
    done = start(
        tmp_path,
        "-c",
        CELERY,
        DJANGO_SETTINGS_MODULE="tests.hosts.site",
        CELERY_BROKER_URL="",
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")


GREEN = """
kind = type("TaskPool", (), {"__module__": "celery.concurrency.gevent"})
import django
django.setup()
from imgo_site.celery import app
app.Worker(pool_cls=kind)
"""


def test_worker_with_a_pool_that_loses_it_does_not_start(tmp_path):
    """The packages of such pools are not installed here: a class stands for one of them."""
    done = start(tmp_path, "-c", GREEN, DJANGO_SETTINGS_MODULE="tests.hosts.base")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "imgo's workers do not work with the pool gevent: use threads, solo, prefork."
    )
