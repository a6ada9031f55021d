"""What pods may reach and may do, tried from inside them."""

import json
from collections.abc import Callable

import pytest

from tests.e2e.asking import OPENAI, SQUARE, ask, order, picture_of
from tests.e2e.cluster import apply, get, kubectl, read_manifest, run_in
from tests.e2e.release import NAME, Release
from tests.e2e.settings import Settings

REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("reached")
except OSError as error:
    print("not reached:", error)
"""
# What the API server says to the token of the pod's own ServiceAccount.
API = """
import os, ssl, sys, urllib.error, urllib.request
mounted = "/var/run/secrets/kubernetes.io/serviceaccount/"
url = "https://{KUBERNETES_SERVICE_HOST}:{KUBERNETES_SERVICE_PORT}".format(**os.environ) + sys.argv[1]
asked = urllib.request.Request(url, headers={"Authorization": "Bearer " + open(mounted + "token").read()})
try:
    print(urllib.request.urlopen(asked, context=ssl.create_default_context(cafile=mounted + "ca.crt")).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
SECRETS = ("SDZERO_FIRST_KEY", "SDZERO_SECRET", "SDZERO_DATABASE_URL", "SDZERO_REDIS_URL", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(scope="module")
def awake(release: Release) -> str:
    """The predictor's pod, which has just made a picture."""
    SQUARE.assert_in(picture_of(ask(release.client(), OPENAI, order(SQUARE, 31))))
    return release.pod("predictor")


@pytest.fixture(scope="module")
def stranger(new_namespace: Callable[[str], str], settings: Settings) -> Callable[[str, int], str]:
    """A pod of another namespace: whether it reaches an address."""
    namespace = new_namespace("stranger")
    apply(namespace, *json.loads(read_manifest("stranger.json", image=settings.edge_image)))
    kubectl("wait", "pod/stranger", "pod/listener", "-n", namespace, "--for=condition=Ready", "--timeout=60s")

    def reach(address: str, port: int) -> str:
        return run_in(namespace, "stranger", "stranger", "python", "-c", REACH, address, str(port)).strip()

    return reach


@pytest.fixture(scope="module")
def enforced(stranger: Callable[[str, int], str], settings: Settings) -> None:
    """Skips where a policy that forbids everything forbids nothing."""
    listener = get("pod", "listener", "-n", "e2e-stranger")["status"]["podIP"]
    assert stranger(listener, 8080) == "reached"
    nobody = {"podSelector": {"matchLabels": {"e2e": "listener"}}, "policyTypes": ["Ingress"], "ingress": []}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "nobody"}}
    apply("e2e-stranger", policy | {"spec": nobody})
    for _ in range(10):  # a policy takes a moment to arrive; each try that fails takes three seconds
        if stranger(listener, 8080) != "reached":
            return
    pytest.skip("this cluster's network does not enforce NetworkPolicies")


def test_a_stranger_does_not_reach_the_predictor(
    enforced: None, release: Release, stranger: Callable[[str, int], str]
) -> None:
    SQUARE.assert_in(picture_of(ask(release.client(), OPENAI, order(SQUARE, 32))))
    address = get("pod", release.pod("predictor"), "-n", release.namespace)["status"]["podIP"]
    assert {stranger(address, port) for port in (8080, 8012)} <= {"not reached: timed out"}


def test_the_predictor_reaches_nobody(enforced: None, release: Release) -> None:
    SQUARE.assert_in(picture_of(ask(release.client(), OPENAI, order(SQUARE, 33))))
    api = get("service", "kubernetes", "-n", "default")["spec"]["clusterIP"]
    for address, port in ((api, "443"), ("1.1.1.1", "443")):
        assert release.in_predictor("python", "-c", REACH, address, port).startswith("not reached")


def test_the_predictor_has_no_credentials(release: Release, awake: str) -> None:
    found = release.in_predictor("python", "-c", "import os; print(os.path.exists('/var/run/secrets'), *os.environ)")
    mounted, *variables = found.split()
    assert mounted == "False"
    assert set(variables) & set(SECRETS) == set()


def test_pods_run_without_privileges_and_cannot_write_their_image(release: Release, awake: str) -> None:
    program = "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/opt', os.W_OK))"
    for inside in (release.in_predictor, release.in_edge):
        assert inside("python", "-c", program).split() == ["65532", "False", "False"]


def test_the_edge_sees_pods_and_no_secrets(release: Release) -> None:
    namespaced = f"/api/v1/namespaces/{release.namespace}"
    answers = {
        path: int(release.in_edge("python", "-c", API, path))
        for path in (f"{namespaced}/pods", f"{namespaced}/events", f"{namespaced}/secrets", "/api/v1/pods")
    }
    assert list(answers.values()) == [200, 200, 403, 403]


@pytest.mark.parametrize("account", ["edge", "predictor"])
def test_nobody_may_change_anything(release: Release, account: str) -> None:
    subject = f"system:serviceaccount:{release.namespace}:{NAME}-{account}"
    own = kubectl("auth", "can-i", "--list", "--as", subject, "-n", release.namespace, "--no-headers")
    changing = {
        line.split()[0]
        for line in own.splitlines()
        if set(line.rpartition("[")[2].rstrip("]").split()) - {"get", "list", "watch"}
    }
    assert {name for name in changing if not name.startswith("self")} == set(), "but for reviews of oneself"
