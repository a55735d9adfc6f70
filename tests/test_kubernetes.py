"""deploy/kubernetes: the manifests obey the API's schemas, and fit together, the image and imgo."""

import copy
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from django.core.management import get_commands

from tests.packages import ROOT, stages
from tests.test_deploy import DEFAULTS, NODE, NODE_STOP, variables

Manifest = dict[str, Any]

HOME = ROOT / "deploy" / "kubernetes"
PAGE = (ROOT / "docs" / "deploying.md").read_text()
VERSIONS = ("1.30", kubernetes_validate.latest_version())
ADAPTED = ("DJANGO_ALLOWED_HOSTS", "IMGO_TRUSTED_PROXIES")  # settings that users replace
IMAGE = "registry.example.com/imgo:0.1.0"  # of docs/deploying.md
PRE_STOP = 30  # seconds for a command's start, and for a drain: DRAIN_SECONDS and ten more
# What each container listens on, by its name.
PORTS = {
    "node": {"http": DEFAULTS.HTTP_PORT, "tcp": DEFAULTS.TCP_PORT},
    "workers": {"metrics": 9102},
    "api": {"http": 8200},
    "migrate": {},
}


def read(*paths: Path) -> list[Manifest]:
    return [one for path in paths for one in yaml.safe_load_all(path.read_text())]


@pytest.fixture
def manifests() -> list[Manifest]:
    return read(*sorted(HOME.glob("*.yaml")))


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found


def kinds(manifests: list[Manifest], *names: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in names]


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """(pod's specification, its only container) of each workload."""
    for workload in kinds(manifests, "Deployment", "Job"):
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        yield pod, container


def schema_errors(manifest: Manifest, version: str) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [error.message]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return []


def loose_ends(manifests: list[Manifest]) -> list[str]:
    """What a manifest refers to in another one, and is not there."""
    return [*_empty_selectors(manifests), *_lost_ports(manifests), *_lost_backends(manifests)]


def _empty_selectors(manifests: list[Manifest]) -> Iterator[str]:
    workloads = kinds(manifests, "Deployment")
    labels = [one["spec"]["template"]["metadata"]["labels"].items() for one in workloads]
    for manifest in kinds(manifests, "Deployment", "Service", "PodDisruptionBudget"):
        selector = manifest["spec"]["selector"]
        if not any(selector.get("matchLabels", selector).items() <= one for one in labels):
            yield f"{manifest['kind']} {manifest['metadata']['name']} selects nothing"


def _lost_ports(manifests: list[Manifest]) -> Iterator[str]:
    """Ports of Services and of probes that no container has."""
    listening = set()
    for _, container in pods(manifests):
        own = {port["name"] for port in container.get("ports", [])}
        listening |= own
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container and container[probe]["httpGet"]["port"] not in own:
                yield f"{container['name']}: {probe}"
    for service in kinds(manifests, "Service"):
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in listening:
                yield f"Service {service['metadata']['name']}: {port['targetPort']}"


def _lost_backends(manifests: list[Manifest]) -> Iterator[str]:
    served = {
        (service["metadata"]["name"], port["name"])
        for service in kinds(manifests, "Service")
        for port in service["spec"]["ports"]
    }
    for ingress in kinds(manifests, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                if (backend["name"], backend["port"]["name"]) not in served:
                    yield f"Ingress {path['path']}: {backend['name']}"


def test_there_are_manifests_for_every_part(manifests):
    found = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    assert found >= {
        ("ConfigMap", "imgo"),
        ("Job", "imgo-migrate"),
        ("Ingress", "imgo"),
        *(("Deployment", f"imgo-{name}") for name in ("node", "workers", "api")),
        *(("PodDisruptionBudget", f"imgo-{name}") for name in ("node", "workers", "api")),
        *(("Service", f"imgo-{name}") for name in ("node", "api", "tcp")),
    }
    assert not kinds(manifests, "Secret")  # they are created by hand


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_obey_the_schemas_of_the_api(manifests, version):
    assert [error for one in manifests for error in schema_errors(one, version)] == []
    assert not any("namespace" in one["metadata"] for one in manifests)


def rename(manifest: Manifest, old: str, new: str) -> None:
    manifest[new] = manifest.pop(old)


BREAKS: dict[str, Callable[[Manifest], object]] = {
    "unknown field": lambda node: rename(node["spec"], "replicas", "replica"),
    "wrong type": lambda node: node["spec"].update(replicas="two"),
    "missing field": lambda node: node["spec"].pop("selector"),
    "unknown kind": lambda node: node.update(kind="Deploymant"),
    "unknown field of a container": lambda node: rename(
        node["spec"]["template"]["spec"]["containers"][0], "livenessProbe", "livenesProbe"
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("what", BREAKS)
def test_broken_manifest_does_not_obey_the_schemas(manifests, what, version):
    node = copy.deepcopy(one(manifests, "Deployment", "imgo-node"))
    assert schema_errors(node, version) == []
    BREAKS[what](node)
    assert len(schema_errors(node, version)) == 1


def test_manifests_refer_to_what_there_is(manifests):
    assert loose_ends(manifests) == []


@pytest.mark.parametrize(
    ("kind", "name", "text", "other"),
    [
        ("Service", "imgo-node", "imgo-node", "imgo-nodes"),
        ("Service", "imgo-tcp", "'targetPort': 'tcp'", "'targetPort': 'raw'"),
        ("PodDisruptionBudget", "imgo-api", "imgo-api", "imgo-apis"),
        ("Ingress", "imgo", "imgo-api", "imgo-apis"),
        ("Deployment", "imgo-workers", "'port': 'metrics'", "'port': 'http'"),
    ],
)
def test_manifests_with_a_loose_end_are_found(manifests, kind, name, text, other):
    manifest = one(manifests, kind, name)
    changed = yaml.safe_load(str(manifest).replace(text, other))
    assert changed != manifest
    manifest["spec"] = changed["spec"]
    assert loose_ends(manifests) != []


def test_containers_start_what_there_is(manifests):
    commands = {container["name"]: container["command"] for _, container in pods(manifests)}
    assert commands["node"] == NODE
    assert all(words[0] == "imgo" for words in commands.values())
    assert {words[1] for words in commands.values()} <= {"node", "api", *get_commands()}
    assert "0.0.0.0:8200" in commands["api"]


def test_settings_and_secrets_are_variables_that_there_are(manifests):
    settings = one(manifests, "ConfigMap", "imgo")["data"]
    own = {entry["name"] for _, c in pods(manifests) for entry in c.get("env", [])}
    secret = set(re.findall(r"--from-literal=(\w+)=", PAGE))
    assert secret == {"DATABASE_URL", "REDIS_URL", "DJANGO_SECRET_KEY"}
    assert {*settings, *own, *secret} <= variables()
    assert all(isinstance(value, str) for value in settings.values())
    for pod, container in pods(manifests):
        assert [next(iter(one)) for one in container["envFrom"]] == ["configMapRef", "secretRef"]
        # Otherwise the Service imgo-tcp sets IMGO_TCP_PORT.
        assert pod["enableServiceLinks"] is False


def test_containers_listen_on_the_ports_that_are_named(manifests):
    found = {
        container["name"]: {p["name"]: p["containerPort"] for p in container.get("ports", [])}
        for _, container in pods(manifests)
    }
    assert found == PORTS
    (env,) = one(manifests, "Deployment", "imgo-workers")["spec"]["template"]["spec"]["containers"]
    assert {"name": "IMGO_WORKER_METRICS_PORT", "value": "9102"} in env["env"]


def test_probes_are_those_of_the_pages(manifests):
    for _, container in pods(manifests):
        if container["name"] == "migrate":
            continue
        assert container["startupProbe"]["httpGet"]["path"] == "/healthz"
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["readinessProbe"]["timeoutSeconds"] > 5  # docs/monitoring.md


def test_pods_have_time_to_stop(manifests):
    grace = {
        container["name"]: pod.get("terminationGracePeriodSeconds")
        for pod, container in pods(manifests)
    }
    assert grace["node"] >= PRE_STOP + NODE_STOP
    assert min(grace["workers"], grace["api"]) >= NODE_STOP


def test_pods_may_do_little(manifests):
    (user,) = stages()[""].rests("USER")
    for pod, container in pods(manifests):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert str(pod["securityContext"]["runAsUser"]) == user
        assert pod["automountServiceAccountToken"] is False
        assert pod["shareProcessNamespace"] is True
        may = container["securityContext"]
        assert (may["allowPrivilegeEscalation"], may["readOnlyRootFilesystem"]) == (False, True)
        assert may["capabilities"] == {"drop": ["ALL"]}
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


def test_ingress_is_patient_enough_for_sessions(manifests):
    ingress = one(manifests, "Ingress", "imgo")
    found = ingress["metadata"]["annotations"]
    for name in ("proxy-read-timeout", "proxy-send-timeout"):
        assert int(found[f"nginx.ingress.kubernetes.io/{name}"]) > DEFAULTS.HEARTBEAT_TIMEOUT
    size = found["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert int(size.removesuffix("m")) * 2**20 >= DEFAULTS.MAX_REQUEST
    paths = ingress["spec"]["rules"][0]["http"]["paths"]
    assert [(path["path"], path["backend"]["service"]["name"]) for path in paths] == [
        ("/sub", "imgo-node"),
        ("/sub/events", "imgo-node"),
        ("/", "imgo-api"),
    ]


def test_manifests_adapted_as_the_page_says_have_the_values_given(manifests, tmp_path):
    command = re.search(r"^(sed -i .+?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]
    target = tmp_path / "deploy" / "kubernetes"
    target.mkdir(parents=True)
    for path in HOME.glob("*.yaml"):
        (target / path.name).write_text(path.read_text())
    before = [one(manifests, "ConfigMap", "imgo")["data"][name] for name in ADAPTED]
    assert before == ["push.example.com,imgo-api", "10.0.0.0/8"]
    assert {c["image"] for _, c in pods(manifests)} == {IMAGE}
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=True)
    text = "".join(path.read_text() for path in target.glob("*.yaml"))
    assert "example.com" not in text
    adapted = read(*target.glob("*.yaml"))
    assert {c["image"] for _, c in pods(adapted)} == {"registry.mysite.org/imgo:1"}
    settings = one(adapted, "ConfigMap", "imgo")["data"]
    assert [settings[name] for name in ADAPTED] == ["push.mysite.org,imgo-api", "10.244.0.0/16"]
    assert one(adapted, "Ingress", "imgo")["spec"]["rules"][0]["host"] == "push.mysite.org"
    assert loose_ends(adapted) == []


def test_page_applies_files_that_there_are():
    named = set(re.findall(r"-f (deploy/kubernetes/\S*)", PAGE))
    assert len(named) == 3
    assert [name for name in named if not (ROOT / name).exists()] == []
