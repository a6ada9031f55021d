"""Who holds what: credentials for the edge only, and nothing secret where everyone may read it."""

import base64
import json
import re
from typing import Any

import pytest

from predictor.edge.settings import KEY
from tests.chart.projection import component, container, services, workloads
from tests.chart.rendering import Object, identity, named, template

SECRET = re.compile(
    rf"{KEY}|://[^/\s:@]*:[^/\s@]+@|AKIA[0-9A-Z]{{16}}|-----BEGIN [A-Z ]*PRIVATE KEY|(?i:password|secret)\s*[=:]\s*\S"
)


def secrets_of(part: Any) -> set[str]:
    """Names of the Secrets that a pod reads, in whichever way."""
    if isinstance(part, list):
        return set().union(*map(secrets_of, part))
    if not isinstance(part, dict):
        return set()
    found = set().union(*map(secrets_of, part.values()))
    for key in ("secretKeyRef", "secretRef", "secret"):
        if isinstance(value := part.get(key), dict):
            found.add(value.get("secretName") or value["name"])
    return found


def made_of(objects: list[Object], part: str) -> list[Object]:
    """The Knative Services of all predictors, or of all transformers."""
    every = [service for isvc in named(objects, "InferenceService") for service in services(isvc, objects)]
    return [service for service in every if component(service) == part]


def test_a_predictor_holds_no_credentials(objects):
    predictors = made_of(objects, "predictor")
    assert predictors
    for service in predictors:
        assert secrets_of(service) == set()
        assert service["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
        sources = [source for volume in service["spec"]["template"]["spec"]["volumes"] for source in volume.items()]
        assert "projected" not in dict(sources)


def test_other_pods_than_the_edge_hold_none_but_the_test_s_key(objects):
    for pod in workloads(objects):
        if pod["metadata"]["labels"]["sdzero.dev/component"] not in ("edge", "test"):
            assert secrets_of(pod["spec"].get("containers")) == set(), identity(pod)


def test_every_secret_of_the_edge_comes_by_reference(objects):
    for service in made_of(objects, "transformer"):
        variables = {one["name"]: one for one in container(service)["env"]}
        for name in ("SDZERO_SECRET", "SDZERO_FIRST_KEY", "SDZERO_DATABASE_URL", "SDZERO_REDIS_URL"):
            assert "value" not in variables.get(name, {}), name
        assert "secretKeyRef" in variables["SDZERO_SECRET"]["valueFrom"]
        assert [one["name"] for one in variables.values() if SECRET.search(one.get("value", ""))] == []


def test_nothing_but_a_secret_holds_secrets(objects):
    for one in objects:
        if one["kind"] != "Secret":
            assert SECRET.search(json.dumps(one)) is None, identity(one)


@pytest.mark.parametrize(
    "text",
    [
        f"sk-sdz-{'a' * 43}",
        "postgresql://sdzero:hunter2@db/sdzero",
        "redis://:hunter2@redis:6379/0",
        "AKIAIOSFODNN7EXAMPLE",
        "-----BEGIN RSA PRIVATE KEY-----",
        "password: hunter2",
    ],
)
def test_what_is_taken_for_a_secret(text):
    assert SECRET.search(text)


def test_secrets_are_drawn_and_fit_their_settings(parts):
    drawn = []
    for _ in range(2):
        made = {one["metadata"]["name"]: one["data"] for one in named(template(4, {}), "Secret")}
        key = base64.b64decode(made["sdzero-first-key"]["key"]).decode()
        signing = base64.b64decode(made["sdzero-secret"]["secret"]).decode()
        assert re.fullmatch(KEY, key)
        assert len(signing) >= 32
        drawn += [key, signing]
    assert len(set(drawn)) == 4


def test_secrets_of_the_user_s_are_taken_instead(parts):
    given = {"firstKey": {"existingSecret": "mine"}, "signing": {"existingSecret": "mine-too"}}
    objects = template(4, given)
    assert named(objects, "Secret") == []
    (edge,) = made_of(objects, "transformer")
    assert secrets_of(edge) == {"mine", "mine-too"}


def test_the_object_store_s_credentials_are_the_edge_s(parts):
    objects = template(4, {"edge": {"images": {"url": "s3://pictures", "existingSecret": "bucket"}}})
    assert "bucket" in secrets_of(made_of(objects, "transformer"))
    assert secrets_of(made_of(objects, "predictor")) == set()


def test_the_edge_may_read_pods_and_events_here_and_nothing_else(objects):
    for role in named(objects, "Role"):
        for rule in role["rules"]:
            assert set(rule["verbs"]) <= {"get", "list", "watch"}
            assert set(rule["resources"]) <= {"pods", "events"}
            assert set(rule["apiGroups"]) <= {"", "events.k8s.io"}
    assert [identity(one) for one in objects if one["kind"] in ("ClusterRole", "ClusterRoleBinding")] == []


def test_it_may_read_nothing_where_it_is_not_to_watch(parts):
    objects = template(4, {"edge": {"watchPods": False}})
    assert named(objects, "Role") + named(objects, "RoleBinding") == []
    (edge,) = made_of(objects, "transformer")
    assert edge["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
