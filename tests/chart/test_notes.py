"""What an installation prints: address, key, and exactly the switches of Knative that it needs."""

import json
import re
import shlex

import pytest

from tests.chart.features import needed
from tests.chart.knative import defaults
from tests.chart.projection import services
from tests.chart.rendering import CASES, install, named

CONFIGS = ("config-features", "config-autoscaler", "config-deployment", "config-defaults")


def patches(notes: str) -> dict[str, dict[str, str]]:
    """The ConfigMaps that the printed commands patch, with the data that they set."""
    found = {}
    for line in notes.splitlines():
        if line.strip().startswith("kubectl patch configmap"):
            words = shlex.split(line)
            found[words[3]] = json.loads(words[words.index("-p") + 1])["data"]
    return found


def test_it_names_the_switches_that_the_release_needs_and_no_others(case):
    objects, notes = install(case)
    flags = {
        flag for isvc in named(objects, "InferenceService") for one in services(isvc, objects) for flag in needed(one)
    }
    said = patches(notes)
    assert said.get("config-features", {}) == dict.fromkeys(flags, "enabled")
    for config, data in said.items():
        assert config in CONFIGS
        for key, value in data.items():
            assert f"{config} {key}: " in notes, "each with its reason"
            assert value != defaults(config)[key], f"{key} is {value} anyway"


def test_every_key_that_may_be_named_is_one_of_knative_s(parts):
    for case in CASES:
        for config, data in patches(install(case)[1]).items():
            assert data.keys() <= defaults(config).keys()


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        ("config-features", "kubernetes.podspec-nodeselector", "disabled"),
        ("config-features", "kubernetes.podspec-volumes-emptydir", "enabled"),
        ("config-autoscaler", "allow-zero-initial-scale", "False"),
        ("config-deployment", "pod-is-always-schedulable", "false"),
        ("config-defaults", "max-revision-timeout-seconds", "600"),
    ],
)
def test_knative_s_defaults_are_read_right(parts, config, key, value):
    assert defaults(config)[key].lower() == value.lower()


def test_it_says_how_to_get_key_and_address(case):
    objects, notes = install(case)
    edges = [isvc["metadata"]["name"] for isvc in named(objects, "InferenceService") if "transformer" in isvc["spec"]]
    if not edges:
        assert "kubectl get secret" not in notes
        return
    assert f"kubectl get ksvc -n pictures {edges[0]}-transformer" in notes
    drawn = [one["metadata"]["name"] for one in named(objects, "Secret") if "key" in one["data"]]
    for name in drawn:
        assert f"kubectl get secret -n pictures {name}" in notes


def test_it_tells_no_secret(case):
    objects, notes = install(case)
    for secret in named(objects, "Secret"):
        assert not any(value in notes for value in secret["data"].values())
    assert not re.search(r"sk-sdz-\w{20}", notes)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ["WARNING", "edge.persistence.enabled"]),
        ({"models": [{"name": "m", "protocol": "grpc"}]}, ["gRPC", "cluster-local"]),
        (
            {"models": [{"name": "m", "unauthenticated": True}], "edge": {"settings": {"auth": "none"}}},
            ["WARNING", "asks nobody for a key"],
        ),
        ({"models": [{"name": "m", "canaryTrafficPercent": 10}]}, ["WARNING", "two revisions", "10 %"]),
        ({"predictor": {"scaling": {"minReplicas": 1}}}, ["never sleeps"]),
        ({"firstKey": {"enabled": False}}, ["sdzero keys create"]),
        ({"predictor": {"tolerations": [{"operator": "Exists"}]}}, ["kubernetes.podspec-tolerations"]),
    ],
)
def test_it_warns(parts, values, words):
    notes = " ".join(install(values)[1].split())
    assert [word for word in words if word not in notes] == []


def test_commands_are_whole(case):
    """No template left a hole: no empty words, no value that is missing."""
    notes = install(case)[1]
    assert "<no value>" not in notes
    assert "%!" not in notes
    assert "map[" not in notes
