"""The files that deploy imgo name commands, variables, ports and times that there are."""

import importlib
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands
from gunicorn.config import Config
from pre_commit.clientlib import load_config

from imgo_site.conf import ImgoSettings, known_names
from tests.packages import stages

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DEFAULTS = ImgoSettings()
NODE = ["imgo", "node"]
NODE_STOP = DEFAULTS.DRAIN_SECONDS + 10  # seconds; docs/deploying.md


def variables() -> set[str]:
    """The names of all environment variables that the settings read."""
    text = (ROOT / "imgo_site" / "settings.py").read_text()
    others = re.findall(r"(?:environ(?:\.get\(|\[)|flag\(|items\()\"(\w+)\"", text)
    assert {"DATABASE_URL", "DJANGO_SECRET_KEY", "DJANGO_ALLOWED_HOSTS"} <= set(others)
    return {f"IMGO_{name}" for name in known_names()} | set(others)


def check_command(words: list[str]) -> None:
    """What is started exists."""
    line = " ".join(words)
    if words[0] == "imgo":  # the package's program
        assert words[1] in {"node", "api", *get_commands()}
    elif found := re.search(r"manage\.py (\w+)", line):
        assert found[1] in get_commands()
    else:
        # Without its settings each of its processes shows metrics of its own at one port.
        module = re.search(r"gunicorn -c python:imgo_site\.gunicorn (\w+\.\w+)", line)
        assert module is not None, f"what does this start? {line}"
        assert importlib.import_module(module[1]).application


def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def ours() -> dict[str, Any]:
    found = {name: one for name, one in compose()["services"].items() if one.get("image") == "imgo"}
    assert set(found) == {"migrate", "node1", "node2", "workers", "api"}
    return found


def seconds(text: str) -> float:
    return float(re.fullmatch(r"(\d+)s?", text)[1])


def test_compose_starts_what_there_is():
    for one in ours().values():
        check_command(one["command"])
        assert set(one["environment"]) <= variables()


def test_compose_passes_on_what_a_project_beside_imgo_sets():
    """Without the tokens' secret, for example, no page of the project can connect."""
    for service in ours().values():
        assert {
            "IMGO_JWT_SECRET",
            "IMGO_ROOMS",
            "IMGO_HOOK_SECRETS",
            "IMGO_AUTHENTICATE_URL",
            "IMGO_AUTHORIZE_ROOM_URL",
            "IMGO_RECEIVE_URL",
            "IMGO_WEBHOOKS",
        } <= service["environment"].keys() & variables()


def test_compose_gives_nodes_time_and_files():
    nodes = [one for one in ours().values() if one["command"] == NODE]
    assert len(nodes) == 2
    for one in nodes:
        assert seconds(one["stop_grace_period"]) >= NODE_STOP
        assert one["ulimits"]["nofile"] > 20_000


def test_compose_has_starting_processes_hear_a_stop():
    # As the first of a container they would ignore SIGTERM until they handle it.
    assert all(one["init"] for one in ours().values())


def test_compose_waits_for_services_that_there_are():
    services = compose()["services"]
    for one in services.values():
        for name, wanted in one.get("depends_on", {}).items():
            assert name in services
            if wanted["condition"] == "service_healthy":
                own = services[name].get("healthcheck", {})
                # Nodes have the image's.
                assert "test" in own or services[name]["command"] == NODE


def test_image_copies_what_the_context_has():
    copied = [name for stage in stages().values() for name in stage.copied]
    assert len(copied) > 10
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)


def test_image_installs_the_pinned_packages_and_its_own_wheel():
    """tests/test_installed.py builds the wheel from what is copied, and runs it so installed."""
    (build,) = stages()["wheel"].rests("RUN")
    assert re.fullmatch(r"pip wheel .*--no-deps --wheel-dir /dist \.", build)
    packages, wheel = stages()[""].rests("RUN")
    assert re.match(r"pip install .*--require-hashes -r requirements\.txt &&", packages)
    assert re.fullmatch(r"pip install .*--no-deps --no-index /dist/\*\.whl", wheel)
    assert "--from=wheel /dist /dist" in stages()[""].rests("COPY")
    python = {line.split()[0] for stage in stages().values() for line in stage.rests("FROM")}
    assert python == {"python:3.11-slim"}


def test_image_runs_a_node_as_another_user_than_root():
    image = stages()[""]
    (user,) = image.rests("USER")
    assert f"useradd --system --uid {user} " in image.rests("RUN")[0]
    assert int(user) >= 10_000
    assert yaml.safe_load(image.rests("CMD")[0]) == NODE
    assert f":{DEFAULTS.HTTP_PORT}/healthz" in image.rests("HEALTHCHECK")[0]


def test_nginx_passes_on_to_the_ports_that_compose_listens_on():
    text = (DEPLOY / "nginx.conf").read_text()
    api = re.search(r"0\.0\.0\.0:(\d+)", " ".join(ours()["api"]["command"]))[1]
    assert set(re.findall(r"server (\w+:\d+)", text)) == {
        f"api:{api}",
        *(f"node{n}:{port}" for n in (1, 2) for port in (DEFAULTS.HTTP_PORT, DEFAULTS.TCP_PORT)),
    }
    published = {int(port.split(":")[1]) for port in compose()["services"]["nginx"]["ports"]}
    assert {int(port) for port in re.findall(r"listen (\d+)", text)} == published
    idle = int(re.search(r"keepalive_timeout (\d+)s;", text)[1])
    assert idle < Config().keepalive < DEFAULTS.HANDSHAKE_TIMEOUT  # gunicorn's, a node's
    patience = re.findall(r"proxy_(?:read_timeout|timeout) (\d+)s;", text)
    # The API's own is shorter.
    assert sum(int(one) > DEFAULTS.HEARTBEAT_TIMEOUT for one in patience) == 2
    # A stream of pushes has no end that is known.
    (stream,) = re.findall(r"location = /api/v1/pushes/stream \{(.+?)\}", text, re.DOTALL)
    assert {"client_max_body_size 0;", "proxy_request_buffering off;"} <= {
        line.strip() for line in stream.splitlines()
    }
    assert text.count("proxy_request_buffering off;") == 1  # slow posts would hold threads
    api_threads = 2 * 8  # docs/deploying.md
    assert int(re.search(r"limit_conn streams (\d+);", stream)[1]) <= api_threads // 2
    assert int(re.search(r"client_max_body_size (\d+)m", text)[1]) * 2**20 >= DEFAULTS.MAX_REQUEST


def test_nginx_conf_adapted_as_the_page_says_names_the_units_ports():
    page = (ROOT / "docs" / "deploying.md").read_text()
    command = re.search(r"^(sed -e .+?) > /etc/nginx/nginx\.conf$", page, re.MULTILINE | re.DOTALL)[
        1
    ]
    adapted = subprocess.run(
        ["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    api = directives(DEPLOY / "systemd" / "imgo-api.service")["ExecStart"]
    usual = (DEFAULTS.HTTP_PORT, DEFAULTS.TCP_PORT)
    assert set(re.findall(r"server ([\w.]+:\d+)", adapted)) == {
        re.search(r"127\.0\.0\.1:\d+", api)[0],
        *(f"127.0.0.1:{port + unit}" for port in usual for unit in (0, 1)),
    }
    assert adapted.startswith("include /etc/nginx/modules-enabled/")


def directives(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_what_there_is_and_may_do_little(path):
    found = directives(path)
    check_command(shlex.split(found["ExecStart"]))
    names = set(re.findall(r"\b(IMGO_\w+|DJANGO_\w+)=", found["ExecStart"]))
    assert names <= variables()
    assert found["User"] != "root"
    assert (found["NoNewPrivileges"], found["ProtectSystem"]) == ("yes", "strict")
    assert int(found["LimitNOFILE"]) > 1024
    assert seconds(found["TimeoutStopSec"]) >= NODE_STOP
    assert (found["Restart"], found["StartLimitIntervalSec"]) == ("always", "0")


def test_the_units_are_node_workers_and_api():
    started = " ".join(directives(path)["ExecStart"] for path in UNITS)
    assert len(UNITS) == 3
    assert all(one in started for one in ("manage.py imgo", "manage.py workers", "imgo_site.wsgi"))


def test_the_example_environment_has_variables_that_there_are():
    found = directives(DEPLOY / "imgo.env.example")
    assert {"DATABASE_URL", "REDIS_URL", "DJANGO_SECRET_KEY"} <= set(found) <= variables()


def test_the_hooks_before_a_commit_are_our_own_tools():
    config = load_config(ROOT / ".pre-commit-config.yaml")
    assert [one["repo"] for one in config["repos"]] == ["local"]
    entries = [hook["entry"] for one in config["repos"] for hook in one["hooks"]]
    assert all(entry.startswith(".venv/bin/python ") for entry in entries)
    for entry in entries:
        if found := re.search(r"manage\.py (\w+)", entry):
            assert found[1] in get_commands()
    assert any("ruff format" in entry for entry in entries)


def test_make_help_lists_all_targets():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (\S+)", makefile, re.MULTILINE))
    listed = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert {"run", "test", "check", "docs", "lock"} <= listed
    assert listed == targets
