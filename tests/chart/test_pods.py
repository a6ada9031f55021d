"""Every pod that results, with the containers that Knative and KServe put in, is one that a careful cluster admits."""

import copy
import json
import re
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chart.breaking import ABSENT, changed
from tests.chart.projection import SIDECAR_PORTS, workloads
from tests.chart.rendering import CASES, Object, identity, rendered, template
from tests.parts import scanner, standards
from tests.parts.part import Missing

# Of the containers in a pod, those that are not ours to set up.
INJECTED = {"queue-proxy", "storage-initializer"}
TAGGED = re.compile(r"[^\s:@]+(:\d+)?(/[^\s:@]+)*(:(?!latest\b)[\w.-]+)?(@sha256:[0-9a-f]{64})?")
# Checks of Checkov's that do not hold here, and why.
EXCEPTED = {
    "CKV_K8S_8": "a predictor has no liveness probe: its server watches its engine itself, and ends when it gives up",
    "CKV_K8S_9": "Knative moves the readiness probe into queue-proxy",
    "CKV_K8S_15": "pull policy Always would ask the registry at every cold start; no tag of ours moves",
    "CKV_K8S_29": "wants the pod's context too, which needs a switch of Knative; each container has all of it",
    "CKV_K8S_35": "the edge reads its secrets from variables, and writes its environment nowhere",
    "CKV_K8S_38": "the edge may watch pods; test_no_pod_has_a_token_that_it_does_not_need asks who has one",
    "CKV_K8S_43": "digests can be set; the defaults are tags, so that a mirror can hold them",
    "CKV2_K8S_6": "wants a NetworkPolicy in the same folder; test_network.py asks what ours let through",
}
# What is in the way of Knative's and KServe's containers beside that, as their defaults are.
THEIRS = {
    "CKV_K8S_11": "queue-proxy has no CPU limit; config-deployment sets one",
    "CKV_K8S_12": "queue-proxy requests no memory; config-deployment sets that",
    "CKV_K8S_13": "queue-proxy has no memory limit; config-deployment sets one",
    "CKV_K8S_22": "the storage initializer writes where it wants; its resource ClusterStorageContainer says so",
    "CKV_K8S_40": "the users that their images name",
}


def each() -> list[tuple[str, Object]]:
    """The pods of all cases: a name for messages, and the pod."""
    return [(f"{case.stem}: {identity(pod)}", pod) for case in CASES for pod in workloads(rendered(4, case))]


def distinct(pods: Iterable[Object]) -> list[Object]:
    """Those that differ in more than names and variables, which no scanner looks at."""
    seen = {}
    for pod in pods:
        plain = changed(pod, "metadata", {})
        for one in containers(plain):
            for field in ("env", "args", "command", "image"):
                one.pop(field, None)
        seen[json.dumps(plain, sort_keys=True)] = pod
    return list(seen.values())


def only(pod: Object, injected: bool) -> Object:
    """The pod with the containers that were put in, or with its own."""
    spec = dict(pod["spec"])
    for key in ("initContainers", "containers"):
        kept = [one for one in spec.pop(key, []) if (one["name"] in INJECTED) is injected]
        spec |= {key: kept} if kept else {}
    return pod | {"spec": spec}


def containers(pod: Object) -> Iterator[Object]:
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


@pytest.fixture(scope="module")
def pods(parts) -> list[tuple[str, Object]]:
    return each()


def objections(pods: list[Object]) -> list[str]:
    try:
        return standards.objections(pods)
    except Missing as missing:
        pytest.skip(str(missing))


def test_every_pod_is_restricted(pods):
    said = dict(zip([name for name, _ in pods], objections([pod for _, pod in pods]), strict=True))
    # KServe gives its storage initializer everything but a seccomp profile.
    kserve = 'seccompProfile (pod or container "storage-initializer" must set'
    assert {name: objection for name, objection in said.items() if objection and not objection.startswith(kserve)} == {}


def test_only_a_predictor_that_is_to_end_drains_shares_its_processes(pods):
    sharing = set()
    for name, pod in pods:
        told = any(variable["name"] == "SDZERO_END_DRAIN" for one in containers(pod) for variable in one.get("env", ()))
        assert pod["spec"].get("shareProcessNamespace", False) is told, name
        if told:
            assert pod["metadata"]["labels"]["sdzero.dev/component"] == "predictor"
            sharing.add(name.partition(":")[0])
    assert sharing == {"one-gpu-values"}


def test_a_download_is_restricted_where_the_pod_has_a_seccomp_profile(parts):
    """What the notes say to set in a namespace that enforces the standard."""
    source = {"form": "folder", "storageUri": "s3://models/sd15"}
    context = {"seccompProfile": {"type": "RuntimeDefault"}}
    model = {"name": "sd15", "source": source, "predictor": {"podSecurityContext": context}}
    values = {"models": [model], "networkPolicy": {"enabled": False}}
    assert set(objections(list(workloads(template(4, values))))) == {""}


@pytest.fixture(scope="module")
def scan(pods, tmp_path_factory) -> dict[str, list[set[str]]]:
    """The failed checks of each pod, by whose containers it has; all at once, since Checkov needs seconds to start."""
    ours = distinct(only(pod, injected=False) for _, pod in pods)
    theirs = distinct(pod for _, whole in pods if "containers" in (pod := only(whole, injected=True))["spec"])
    wrong = list(weakened(ours[0]).values())
    every, folder = [*ours, *theirs, *wrong], tmp_path_factory.mktemp("pods")
    for number, pod in enumerate(every):
        text = json.dumps(changed(pod, "metadata.name", f"pod-{number}"))
        (folder / f"{number}.json").write_text(text, encoding="utf-8")
    try:
        passed, findings = scanner.scan(folder)
    except Missing as missing:
        pytest.skip(str(missing))
    assert passed > 20 * len(every)
    failed = [{one.check for one in findings if one.object.endswith(f".pod-{i}")} for i in range(len(every))]
    whose = dict(zip((json.dumps(pod, sort_keys=True) for pod in every), failed, strict=True))
    groups = {"ours": ours, "theirs": theirs, "wrong": wrong}
    return {name: [whose[json.dumps(pod, sort_keys=True)] for pod in group] for name, group in groups.items()}


def test_a_scanner_finds_nothing_in_our_containers(scan):
    assert len(scan["ours"]) > 5
    assert set().union(*scan["ours"]) - EXCEPTED.keys() == set()


def test_a_scanner_finds_what_is_known_in_theirs(scan):
    assert set().union(*scan["theirs"]) - EXCEPTED.keys() == THEIRS.keys()


WRONG = {
    "privileged": ("spec.containers.0.securityContext.privileged", True),
    "escalation": ("spec.containers.0.securityContext.allowPrivilegeEscalation", True),
    "root": ("spec.containers.0.securityContext.runAsUser", 0),
    "maybe root": ("spec.containers.0.securityContext.runAsNonRoot", ABSENT),
    "a capability": ("spec.containers.0.securityContext.capabilities.add", ["SYS_ADMIN"]),
    "usual capabilities": ("spec.containers.0.securityContext.capabilities", ABSENT),
    "no seccomp": ("spec.containers.0.securityContext.seccompProfile", {"type": "Unconfined"}),
    "host's network": ("spec.hostNetwork", True),
    "host's files": ("spec.volumes.0", {"name": "host", "hostPath": {"path": "/"}}),
    "host's port": ("spec.containers.0.ports.0.hostPort", 80),
}


def weakened(pod: Object) -> dict[str, Object]:
    """The pod with one thing wrong, by what it is."""
    return {name: changed(pod, *change) for name, change in WRONG.items()}


def test_a_weakened_pod_is_refused(pods):
    wrong = weakened(pods[0][1])
    said = dict(zip(wrong, objections(list(wrong.values())), strict=True))
    assert {name for name, objection in said.items() if not objection} == set()


def test_the_scanner_sees_weakened_pods(scan):
    unseen = {name for name, failed in zip(WRONG, scan["wrong"], strict=True) if not failed - EXCEPTED.keys()}
    # The first names its user, who is not root; the others it has no check for, as the standards do.
    assert unseen <= {"maybe root", "no seccomp", "host's files", "host's port"}


def test_root_filesystems_are_read_only(pods):
    writable = [
        (name, one["name"])
        for name, pod in pods
        for one in containers(pod)
        if one["name"] not in INJECTED and not one["securityContext"].get("readOnlyRootFilesystem")
    ]
    assert writable == []


def test_every_container_says_what_it_needs(pods):
    """CPU and memory, requested and limited: KServe's default of 1 CPU and 2 GiB would fill the gap."""
    for name, pod in pods:
        for one in containers(pod):
            if one["name"] in INJECTED:
                continue
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= one["resources"][bound].keys(), (name, one["name"], bound)


def test_gpus_are_requested_as_they_are_limited(pods):
    for name, pod in pods:
        for one in containers(pod):
            resources = one.get("resources", {})
            devices = {key for bound in ("requests", "limits") for key in resources.get(bound, {}) if "/" in key}
            for device in devices:
                assert resources["requests"][device] == resources["limits"][device], name


def test_every_image_is_pinned(pods):
    for name, pod in pods:
        for one in containers(pod):
            image = str(one["image"])
            assert TAGGED.fullmatch(image), (name, image)
            assert "@sha256:" in image or ":" in image.rpartition("/")[2], (name, image)


@pytest.mark.parametrize(
    "image", ["sdzero/edge", "sdzero/edge:latest", "host:5000/sdzero/edge", "edge:latest@sha256:1"]
)
def test_what_is_no_pinned_image(image):
    assert not (TAGGED.fullmatch(image) and ("@sha256:" in image or ":" in image.rpartition("/")[2]))


def test_ports_are_not_the_sidecars(pods):
    for name, pod in pods:
        own = [one for one in containers(pod) if one["name"] not in INJECTED]
        ports = {port["containerPort"] for one in own for port in one.get("ports", [])}
        variables = [variable for one in own for variable in one.get("env", [])]
        ports |= {int(one["value"]) for one in variables if re.fullmatch(r"SDZERO_\w*PORT", one["name"])}
        assert ports & SIDECAR_PORTS == set(), name


def test_no_pod_has_a_token_that_it_does_not_need(pods):
    for name, pod in pods:
        account = pod["spec"]["serviceAccountName"]
        assert pod["spec"].get("automountServiceAccountToken") is False or account == "sdzero-edge", name
        assert account != "default", name


def test_no_pod_gets_every_service_s_address(pods):
    """Kubernetes would put them into the environment, and some of their names begin like our settings."""
    assert [name for name, pod in pods if pod["spec"].get("enableServiceLinks") is not False] == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_without_any_one_of_its_safeguards_a_pod_is_refused(pods, data):
    """Whichever container of ours loses whichever field that the standards ask for."""
    _, whole = data.draw(st.sampled_from(pods))
    pod = copy.deepcopy(whole)
    ours = [one for one in containers(pod) if one["name"] not in INJECTED]
    context = data.draw(st.sampled_from(ours))["securityContext"]
    asked = ["allowPrivilegeEscalation", "capabilities"]
    asked += [] if pod["spec"].get("securityContext", {}).get("seccompProfile") else ["seccompProfile"]
    asked += [] if pod["spec"].get("securityContext", {}).get("runAsNonRoot") else ["runAsNonRoot"]
    del context[data.draw(st.sampled_from(asked))]
    assert objections([pod]) != [""]
