"""Probes and metrics: by any Host, and nothing else by it; alive, ready and drained."""

import pytest
from django.test import AsyncClient, Client

from imgo_site.process_parts import process
from push.status.instance import Instance

HOSTS = ["10.1.2.3:8000", "localhost", "[::1]", "imgo-0.imgo.svc"]


@pytest.fixture(autouse=True)
def _strict(settings) -> None:
    """As docs/deploying.md has it: the public name alone."""
    settings.ALLOWED_HOSTS = ["push.example"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("host", HOSTS)
def test_probes_answer_by_any_host(client: Client, host, redis_client):
    assert client.get("/healthz", headers={"Host": host}).json() == {"status": "ok"}
    answer = client.get("/readyz", headers={"Host": host})
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert "X-Request-ID" in answer


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("host", HOSTS)
def test_metrics_answer_by_any_host_and_need_a_key(client: Client, api, host, redis_client):
    assert client.get("/metrics", headers={"Host": host}).status_code == 401
    assert api.get("/metrics", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/healthz/", "/healthz/x", "/api/v1/nodes", "/1/count", "/admin/", "/sub"]
)
def test_other_paths_are_refused_by_a_foreign_host(db, api, path):
    assert api.get(path, headers={"Host": "10.1.2.3"}).status_code == 400


@pytest.mark.django_db(transaction=True)
async def test_probes_answer_on_a_node_by_any_host(redis_client):
    client = AsyncClient()
    for path in ("/healthz", "/readyz"):
        answer = await client.get(path, headers={"Host": "10.1.2.3"})
        assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert (await client.post("/healthz")).status_code == 405
    assert (await client.get("/api/v1/nodes", headers={"Host": "10.1.2.3"})).status_code == 400


@pytest.mark.django_db(transaction=True)
def test_drained_process_lives_and_is_not_ready(client: Client, redis_client, settings):
    settings.ALLOWED_HOSTS = ["testserver"]
    health = process.get(Instance).health
    health.draining()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "draining"})
    assert client.get("/readyz").status_code == 503
    health.undrained()
    assert client.get("/readyz").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_readiness_names_tasks_that_go_on_failing(client: Client, redis_client, settings):
    settings.ALLOWED_HOSTS = ["testserver"]

    def failing() -> list[str]:
        return ["acknowledger"]

    process.get(Instance).health.watch(failing)
    found = client.get("/readyz").json()
    assert found["status"] == "degraded"
    assert found["checks"]["tasks"] == "failing: acknowledger"
