"""What contradicts itself, or is not known, fails at once and in words that name it."""

import pytest

from tests.chart.breaking import changed
from tests.chart.rendering import Refused, template

STORES = {"database": {"existingSecret": "db"}, "redis": {"existingSecret": "r"}, "images": {"url": "s3://b"}}
OPEN = {"networkPolicy": {"enabled": False}}
DUPLICATE = {"models": [{"name": "a"}, {"name": "a"}]}


def model(**values: object) -> dict[str, object]:
    """Values with one model."""
    return {"models": [{"name": "m", **values}]}


# values → words that the refusal must hold
CONTRADICTIONS = {
    "two models of one name": (DUPLICATE, "models", "twice", "each name once"),
    "no model": ({"models": []}, "models"),
    "a long name": (model(name="m" * 30) | {"fullnameOverride": "f" * 30}, "name", "40"),
    "no source": (model(source={"baked": False}), "models[m].source", "none of them", "exactly one of"),
    "two sources": (model(source={"baked": True, "oci": "a/b:1"}), "source", "baked and oci", "exactly one"),
    "download without egress": (
        model(source={"form": "folder", "storageUri": "s3://b/m"}),
        "networkPolicy.predictor.egress",
        "s3://b/m",
    ),
    "capabilities twice": (
        model(capabilities="files/shapes.capabilities.json", capabilitiesConfigMap="c"),
        "capabilities and capabilitiesConfigMap",
        "one of them",
    ),
    "capabilities of nothing": (model(capabilities="files/none.json"), "models[m].capabilities", "files/none.json"),
    "capabilities that are no JSON": (model(capabilities="hello"), "models[m].capabilities", "sdzero capabilities"),
    "longer than Knative allows": (
        {"predictor": {"timeoutSeconds": 900}},
        "predictor.timeoutSeconds",
        "got 900",
        "up to 600",
        "max-revision-timeout-seconds",
    ),
    "more pods than there may be": ({"predictor": {"scaling": {"minReplicas": 2}}}, "minReplicas", "got 2", "up to"),
    "a start with more than that": ({"predictor": {"scaling": {"initialScale": 2}}}, "initialScale", "got 2", "up to"),
    "retention below the grace period": (
        {"predictor": {"scaling": {"retentionSeconds": 10}}},
        "predictor.scaling.retentionSeconds",
        "got 10",
        "0, or 30",
    ),
    "CUDA without a GPU": ({"predictor": {"device": "cuda"}}, "predictor.gpu.count", "got 0", "1 or more"),
    "grace beyond the pod's end": (
        {"predictor": {"settings": {"grace_seconds": 590}}},
        "predictor.settings.grace_seconds",
        "got 590",
        "up to 570",
    ),
    "a queue below what is sent": (
        {"predictor": {"settings": {"queue_images": 1}}},
        "predictor.settings.queue_images",
        "got 1",
        "or more",
    ),
    "woken by nobody": (
        model(protocol="grpc", predictor={"prewarm": {"schedule": "0 8 * * *"}}),
        "predictor.prewarm.schedule",
        "protocol v2",
    ),
    "an annotation that scaling sets": (
        {"predictor": {"annotations": {"autoscaling.knative.dev/window": "6s"}}},
        "predictor.annotations",
        "autoscaling.knative.dev/window",
    ),
    "public gRPC": (model(protocol="grpc", visibility="public"), "visibility", "unauthenticated true"),
    "an edge that asks nobody": (
        {"edge": {"settings": {"auth": "none"}}},
        "edge.settings.auth",
        "got none",
        "unauthenticated true",
    ),
    "unauthenticated with keys": (model(unauthenticated=True), "unauthenticated", "got true", "auth none"),
    "edge's grace beyond its end": (
        {"edge": {"settings": {"grace_seconds": 590}}},
        "edge.settings.grace_seconds",
        "got 590",
    ),
    "a cold start that takes all the time": (
        {"edge": {"settings": {"cold_start_seconds": 600}}},
        "edge.settings.cold_start_seconds",
        "below predictor.timeoutSeconds",
    ),
    "several edges with stores of one": (
        {"edge": {"replicas": 2}},
        "edge.replicas",
        "got 2",
        "edge.database.existingSecret, edge.redis.existingSecret, edge.images.url",
    ),
    "jobs that outlive their pictures": (
        {"edge": {"database": {"existingSecret": "db"}}} | OPEN,
        "edge.images.url",
        "existingSecret",
    ),
    "credentials of no store": ({"edge": {"images": {"existingSecret": "s"}}}, "edge.images.url"),
    "a volume for what is elsewhere": (
        {"edge": STORES | {"persistence": {"enabled": True}}} | OPEN,
        "edge.persistence.enabled",
        "got true",
    ),
    "a claim that is not used": (
        {"edge": {"persistence": {"existingClaim": "c"}}},
        "edge.persistence.existingClaim",
        "enabled false",
    ),
    "one claim for two": (
        {"models": [{"name": "a"}, {"name": "b"}], "edge": {"persistence": {"enabled": True, "existingClaim": "c"}}},
        "edge.persistence.existingClaim",
        "a and b",
    ),
    "stores behind a closed door": ({"edge": STORES}, "networkPolicy.edge.egress", "PostgreSQL and Redis"),
    "a key that is given and switched off": (
        {"firstKey": {"enabled": False, "existingSecret": "k"}},
        "firstKey.enabled",
        "got false",
    ),
}
# place → a value that the schema refuses, and words
UNKNOWN = {
    "predictors": ({}, "predictors"),
    "predictor.scaling.minReplica": (0, "minReplica"),
    "predictor.scaling.maxReplicas": (0, "maxReplicas"),
    "predictor.scaling.windowSeconds": ("30s", "windowSeconds"),
    "predictor.settings.max_row": (8, "max_row"),
    "predictor.settings.max_rows": (65, "max_rows"),
    "predictor.settings.model": ("/m", "model"),
    "predictor.device": ("tpu", "device"),
    "predictor.env": ([{"name": "SDZERO_MAX_ROWS", "value": "8"}], "env"),
    "predictor.image.digest": ("sha256:12", "digest"),
    "predictor.resources.limits": ({"memory": "2 GB"}, "limits"),
    "edge.settings.wakes_per_hours": (1, "wakes_per_hours"),
    "edge.settings.secret": ("s" * 48, "secret"),
    "edge.replicas": (0, "replicas"),
    "edge.images.url": ("https://bucket", "url"),
    "firstKey.key": ("sk-sdz-", "key"),
    "knative.namespace": ("", "namespace"),
    "networkPolicy.enabled": ("yes", "enabled"),
    "fullnameOverride": ("Not_A_Name", "fullnameOverride"),
    "models": ([{"name": "UPPER"}], "name"),
    "clusterDomain": ("a b", "clusterDomain"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_fail_in_words(helm, name):
    values, *words = CONTRADICTIONS[name]
    with pytest.raises(Refused) as refused:
        template(helm, values)
    assert [word for word in words if word not in str(refused.value)] == [], refused.value


@pytest.mark.parametrize("place", UNKNOWN)
def test_what_the_schema_does_not_know_fails_in_words(helm, place):
    value, word = UNKNOWN[place]
    with pytest.raises(Refused) as refused:
        template(helm, changed({}, place, value))
    assert word in str(refused.value)
    assert "schema" in str(refused.value)


@pytest.mark.parametrize("name", [name for name in CONTRADICTIONS if name != "no model"])
def test_contradictions_say_what_came_and_what_is_allowed(parts, name):
    with pytest.raises(Refused, match=r"(got|it is) .*; allowed: "):
        template(4, CONTRADICTIONS[name][0])
