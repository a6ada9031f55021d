"""Who reaches the pods and whom they reach; and that the evaluation of NetworkPolicies behind it is right."""

import pytest

from tests.chart.projection import workloads
from tests.chart.reachability import Peer, matches, may_enter, may_leave
from tests.chart.rendering import CASES, NAMESPACE, Object, named, rendered, template

ACTIVATOR = Peer("knative-serving", {"app": "activator"})
AUTOSCALER = Peer("knative-serving", {"app": "autoscaler"})
GATEWAY = Peer("kourier-system", {"app": "3scale-kourier-gateway"})
PROMETHEUS = Peer("monitoring", {"app.kubernetes.io/name": "prometheus"})
NEIGHBOUR = Peer(NAMESPACE, {"app": "somebody"})
ELSEWHERE = Peer("default", {"app": "somebody"})
INTERNET, METADATA, INTRANET = Peer(address="93.184.215.14"), Peer(address="169.254.169.254"), Peer(address="10.1.2.3")
DNS = Peer("kube-system", {"k8s-app": "kube-dns"})
PATH = (8012, 8013, 8112)  # queue-proxy's, which ask the container
OWN = (8080, 8081, 9464)  # the containers'
# With a storageUri KServe downloads the model from within the pod, which has to reach the store.
SEALED = [case for case in CASES if "storageUri:" not in case.read_text(encoding="utf-8")]


def of(objects: list[Object], component: str) -> list[Peer]:
    """The pods of a component as ends of connections."""
    pods = [pod for pod in workloads(objects) if pod["metadata"]["labels"].get("sdzero.dev/component") == component]
    return [Peer(pod["metadata"]["namespace"], pod["metadata"]["labels"]) for pod in pods]


@pytest.fixture
def policies(objects) -> list[Object]:
    return named(objects, "NetworkPolicy")


def test_requests_come_by_knative_s_data_path_and_no_other(objects, policies):
    pods = of(objects, "predictor") + of(objects, "edge")
    assert pods
    for pod in pods:
        for port in PATH:
            assert may_enter(policies, pod, ACTIVATOR, port)
            assert may_enter(policies, pod, GATEWAY, port)
        assert may_enter(policies, pod, AUTOSCALER, 9090)
        for stranger in (NEIGHBOUR, ELSEWHERE, INTERNET, *pods):
            assert not any(may_enter(policies, pod, stranger, port) for port in (*PATH, *OWN, 9090, 9091))


def test_nobody_goes_round_queue_proxy(objects, policies):
    """The container's own port would answer whoever knows the pod's address, and wake nothing: knative/serving#6520."""
    for pod in of(objects, "predictor") + of(objects, "edge"):
        for source in (ACTIVATOR, AUTOSCALER, GATEWAY, NEIGHBOUR, ELSEWHERE):
            assert not any(may_enter(policies, pod, source, port) for port in OWN)


@pytest.mark.parametrize("case", SEALED, ids=lambda path: path.stem)
def test_a_predictor_reaches_names_and_no_more(parts, case):
    objects = rendered(4, case)
    policies = named(objects, "NetworkPolicy")
    for pod in of(objects, "predictor"):
        assert may_leave(policies, pod, DNS, 53, "UDP")
        assert may_leave(policies, pod, DNS, 53, "TCP")
        for target in (INTERNET, METADATA, INTRANET, GATEWAY, ACTIVATOR, NEIGHBOUR, ELSEWHERE, *of(objects, "edge")):
            assert not any(may_leave(policies, pod, target, port) for port in (80, 443, 5432, 6443, 8080, 8012))


def test_an_edge_reaches_the_gateway_and_names(objects, policies):
    for pod in of(objects, "edge"):
        assert may_leave(policies, pod, DNS, 53, "UDP")
        for target in (GATEWAY, ACTIVATOR):
            assert may_leave(policies, pod, target, 8012)
        for target in of(objects, "predictor"):
            assert not may_leave(policies, pod, target, 8080)


def test_an_edge_never_reaches_the_metadata_of_a_cloud_s_machine(objects, policies):
    for pod in of(objects, "edge"):
        assert not may_leave(policies, pod, METADATA, 80)


@pytest.mark.parametrize("internet", [True, False])
def test_webhooks_and_object_stores_may_be_switched_off(parts, internet):
    objects = template(4, {"networkPolicy": {"edge": {"internet": internet}}, "edge": {"watchPods": False}})
    (edge,), policies = of(objects, "edge"), named(objects, "NetworkPolicy")
    assert [may_leave(policies, edge, INTERNET, port) for port in (443, 80, 22)] == [internet, internet, False]
    assert not may_leave(policies, edge, INTRANET, 443)


def test_prometheus_reaches_metrics_where_the_values_name_it(parts):
    monitoring = {"kubernetes.io/metadata.name": PROMETHEUS.namespace}
    objects = template(4, {"networkPolicy": {"metricsFrom": monitoring}})
    policies = named(objects, "NetworkPolicy")
    for component, port in (("predictor", 8080), ("edge", 9464)):
        (pod,) = of(objects, component)
        assert may_enter(policies, pod, PROMETHEUS, port)
        assert may_enter(policies, pod, PROMETHEUS, 9091)
        assert not may_enter(policies, pod, PROMETHEUS, 8012)
        assert not may_enter(policies, pod, ELSEWHERE, port)


def test_policies_may_be_left_to_others(parts):
    assert named(template(4, {"networkPolicy": {"enabled": False}}), "NetworkPolicy") == []


def test_a_release_s_policies_select_no_other_release_s_pods(case):
    policies = named(rendered(4, case), "NetworkPolicy")
    others = template(4, case, release="other")
    for component in ("predictor", "edge"):
        for pod in of(others, component):
            assert not any(matches(policy["spec"]["podSelector"], pod.labels) for policy in policies)


# --- the evaluation itself

POD = Peer("a", {"app": "x"})


def policy(**spec: object) -> Object:
    return {"metadata": {"namespace": "a"}, "spec": {"podSelector": {}} | spec}


def test_what_no_policy_selects_is_open():
    elsewhere = policy() | {"metadata": {"namespace": "b"}}
    other = policy(podSelector={"matchLabels": {"app": "y"}})
    for policies in ([], [elsewhere], [other]):
        assert may_enter(policies, POD, ELSEWHERE, 80)
        assert may_leave(policies, POD, ELSEWHERE, 80)


def test_a_policy_closes_what_it_does_not_open():
    assert not may_enter([policy()], POD, ELSEWHERE, 80)
    assert may_leave([policy()], POD, ELSEWHERE, 80)
    assert not may_leave([policy(policyTypes=["Egress"])], POD, ELSEWHERE, 80)
    assert may_enter([policy(policyTypes=["Egress"])], POD, ELSEWHERE, 80)
    assert not may_leave([policy(egress=[])], POD, ELSEWHERE, 80)


def test_rules_add_up():
    rules = [{"ports": [{"port": 80}]}, {"from": [{"podSelector": {"matchLabels": {"app": "y"}}}]}]
    policies = [policy(ingress=[rules[0]]), policy(ingress=[rules[1]])]
    friend = Peer("a", {"app": "y"})
    assert may_enter(policies, POD, ELSEWHERE, 80)
    assert may_enter(policies, POD, friend, 22)
    assert not may_enter(policies, POD, ELSEWHERE, 22)
    assert not may_enter(policies, POD, Peer("b", {"app": "y"}), 22)
    assert not may_enter(policies, POD, ELSEWHERE, 80, "UDP")


def test_namespace_and_pod_in_one_entry_must_both_fit():
    both = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "b"}},
        "podSelector": {"matchLabels": {"app": "y"}},
    }
    one_of = [{key: value} for key, value in both.items()]
    assert may_enter([policy(ingress=[{"from": [both]}])], POD, Peer("b", {"app": "y"}), 80)
    assert not may_enter([policy(ingress=[{"from": [both]}])], POD, Peer("b", {"app": "z"}), 80)
    assert may_enter([policy(ingress=[{"from": one_of}])], POD, Peer("b", {"app": "z"}), 80)


def test_addresses_with_exceptions_and_ranges_of_ports():
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
    policies = [policy(egress=[{"to": [block], "ports": [{"port": 8000, "endPort": 8010}]}])]
    assert may_leave(policies, POD, Peer(address="10.2.0.1"), 8010)
    assert not may_leave(policies, POD, Peer(address="10.2.0.1"), 8011)
    assert not may_leave(policies, POD, Peer(address="10.1.0.1"), 8010)
    assert not may_leave(policies, POD, Peer(address="11.0.0.1"), 8010)
    assert not may_leave(policies, POD, ELSEWHERE, 8010)


@pytest.mark.parametrize(
    ("operator", "values", "selected"),
    [
        ("In", ["x"], True),
        ("In", ["y"], False),
        ("NotIn", ["x"], False),
        ("NotIn", ["y"], True),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_expressions(operator, values, selected):
    expression = {"key": "app", "operator": operator, "values": values}
    assert matches({"matchExpressions": [expression]}, POD.labels) is selected
