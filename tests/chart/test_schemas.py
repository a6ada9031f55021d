"""The objects fit the schemas of Kubernetes, Knative and KServe; and the schemas are really applied."""

import pytest

from tests.chart.breaking import changed
from tests.chart.projection import pods, services
from tests.chart.rendering import Object, identity
from tests.chart.schemas import errors

ISVC: Object = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "shapes", "namespace": "pictures", "labels": {"a": "b"}},
    "spec": {
        "predictor": {
            "minReplicas": 0,
            "maxReplicas": 1,
            "containers": [
                {
                    "name": "kserve-container",
                    "image": "sdzero/predictor:1",
                    "ports": [{"containerPort": 8080}],
                    "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "2Gi"}},
                }
            ],
        },
        "transformer": {"containers": [{"name": "kserve-container", "image": "sdzero/edge:1"}]},
    },
}
KSVC, POD = services(ISVC)[0], pods(ISVC)[0]
POLICY: Object = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "a", "namespace": "pictures"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 8080}]}]},
}
BROKEN = [
    # object, place, what is put there, words of the refusal
    (ISVC, "spec.predictor.minReplica", 0, "'minReplica' was unexpected"),
    (ISVC, "spec.predictor.minReplicas", "zero", "'zero' is not of type 'integer'"),
    (ISVC, "spec.predictor.scaleMetric", "qps", "'qps' is not one of"),
    (ISVC, "spec.predictor.containers.0.resource", {}, "'resource' was unexpected"),
    (ISVC, "spec.predictor.containers.0.ports.0.containerPort", "8080", "'8080' is not of type 'integer'"),
    (ISVC, "spec.predictor.containers.0.image", 1, "1 is not of type 'string'"),
    (ISVC, "spec.predictor.containers.0.env", {"A": "b"}, "is not of type 'array'"),
    (ISVC, "spec.transformer.tolerations", [{"keys": "gpu"}], "'keys' was unexpected"),
    (ISVC, "spec.predictors", {}, "'predictors' was unexpected"),
    (ISVC, "specs", {}, "'specs' was unexpected"),
    (ISVC, "apiVersion", "serving.kserve.io/v1", "defines no such kind"),
    (ISVC, "metadata.label", {}, "'label' was unexpected"),
    (ISVC, "metadata.labels.a", 1, "1 is not of type 'string'"),
    (ISVC, "metadata.labels.a", "-", "is no label's value"),
    (ISVC, "metadata.name", "shapes.v1", "is no InferenceService's"),
    (ISVC, "metadata.name", "s" * 60, "of at most"),
    (KSVC, "spec.template.spec.containerConcurrenc", 1, "'containerConcurrenc' was unexpected"),
    (KSVC, "spec.template.spec.timeoutSeconds", "600", "'600' is not of type 'integer'"),
    (KSVC, "spec.template.spec.containers.0.command", "sdzero", "is not of type 'array'"),
    (KSVC, "spec.trafic", [], "'trafic' was unexpected"),
    (POD, "spec.containers.0.securityContext", {"runAsNonroot": True}, "'runAsNonroot' was unexpected"),
    (POLICY, "spec.ingress.0.from", {"podSelector": {}}, "is not of type 'array'"),
    (POLICY, "spec.policyType", ["Egress"], "'policyType' was unexpected"),
]


@pytest.mark.parametrize("one", [ISVC, KSVC, POD, POLICY], ids=identity)
def test_what_the_broken_ones_are_made_from_is_valid(one):
    assert errors(one) == []


@pytest.mark.parametrize(("one", "place", "value", "words"), BROKEN, ids=[f"{b[0]['kind']}-{b[1]}" for b in BROKEN])
def test_a_broken_manifest_is_refused(one, place, value, words):
    assert any(words in error for error in errors(changed(one, place, value)))


def test_numbers_and_texts_both_are_quantities():
    for amount in (1, "1", "500m"):
        assert errors(changed(ISVC, "spec.predictor.containers.0.resources.limits.cpu", amount)) == []
    assert errors(changed(ISVC, "spec.predictor.containers.0.resources.limits.cpu", [])) != []


def test_an_unknown_kind_is_an_error():
    assert errors({"apiVersion": "v1", "kind": "Podd", "metadata": {"name": "a"}}) != []


def test_what_the_chart_renders_is_valid(objects):
    assert {identity(one): found for one in objects if (found := errors(one))} == {}


def test_what_kserve_and_knative_make_of_it_is_valid(objects):
    made = [service for one in objects if one["kind"] == "InferenceService" for service in services(one, objects)]
    made += [pod for one in objects if one["kind"] == "InferenceService" for pod in pods(one, objects)]
    assert len(made) >= 2
    assert {identity(one): found for one in made if (found := errors(one))} == {}


def test_no_two_objects_have_one_name(objects):
    names = [(identity(one), one["metadata"].get("namespace")) for one in objects]
    assert len(set(names)) == len(names)
