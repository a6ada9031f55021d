"""The suite for a real cluster: it runs when it is asked for by name, and on the cluster that KUBECONFIG names."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import apply, get, kubectl, read_manifest, switch_on, versions
from tests.e2e.release import Release
from tests.e2e.report import Proof, Report
from tests.e2e.settings import Settings, read

HERE = Path(__file__).parent
ASK = "`make e2e` runs it, on the cluster that KUBECONFIG names"
LONGEST = 3600.0  # seconds of one test
REPORT = pytest.StashKey[Report]()


def was_asked_for(config: pytest.Config) -> bool:
    """Whether the command line names this folder or something in it."""
    given = (Path(config.invocation_params.dir, argument.partition("::")[0]) for argument in config.args)
    return any(path.resolve().is_relative_to(HERE) for path in given)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whoever runs all tests has not said that a cluster may be used."""
    return None if was_asked_for(config) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(LONGEST))
            if "KUBECONFIG" not in os.environ:
                item.add_marker(pytest.mark.skip(reason=f"no cluster: {ASK}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not was_asked_for(config):
        terminalreporter.write_line(f"tests/e2e was left out: {ASK}")
    elif report := config.stash.get(REPORT, None):
        terminalreporter.section("proven on the cluster")
        for line in report.table():
            terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    outcome = yield
    report = item.config.stash.get(REPORT, None)
    if report is not None and item.path.is_relative_to(HERE):
        proof = report.proofs.setdefault(item.nodeid.partition("tests/e2e/")[2], Proof(claim_of(item)))
        proof.seconds += call.duration
        if outcome.skipped:
            proof.outcome = f"skipped: {call.excinfo.value}" if call.excinfo else "skipped"
        elif outcome.failed:
            proof.outcome = "failed"
        elif call.when == "call":
            proof.outcome = "passed"
    return outcome


def claim_of(item: pytest.Item) -> str:
    """The name of a test as the sentence that it is, with its parameters."""
    name, _, parameters = item.name.removeprefix("test_").partition("[")
    return name.replace("_", " ") + (f": {parameters.removesuffix(']')}" if parameters else "")


@pytest.fixture(scope="session")
def settings() -> Settings:
    return read()


@pytest.fixture(scope="session", autouse=True)
def report(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Report]:
    """What the run proves; written when it ends."""
    report = request.config.stash[REPORT] = Report(versions=versions())
    yield report
    report.write(Path(settings.results))


@pytest.fixture
def facts(request: pytest.FixtureRequest, report: Report) -> dict[str, object]:
    """What this test has measured, for the table."""
    name = request.node.nodeid.partition("tests/e2e/")[2]
    return report.proofs.setdefault(name, Proof(claim_of(request.node))).facts


@pytest.fixture(scope="session")
def new_namespace(settings: Settings) -> Iterator[Callable[[str], str]]:
    """Makes empty namespaces `e2e-NAME`; deletes them after the last test."""
    made: list[str] = []

    def make(name: str) -> str:
        namespace = f"e2e-{name}"
        there = [item["metadata"]["name"] for item in get("namespaces")["items"]]
        if namespace in there:
            kubectl("delete", "namespace", namespace, "--wait", seconds=300)
        kubectl("create", "namespace", namespace)
        kubectl("wait", "serviceaccount/default", "configmap/kube-root-ca.crt", "-n", namespace, "--for=create")
        made.append(namespace)
        return namespace

    yield make
    if made and not settings.keep:
        kubectl("delete", "namespace", *made, "--wait=false")


@pytest.fixture(scope="session")
def new_release(settings: Settings, new_namespace: Callable[[str], str]) -> Iterator[Callable[..., Release]]:
    """A release that is not installed yet, in a namespace of its own; values as keywords."""
    clients = contextlib.ExitStack()

    def make(name: str, **values: object) -> Release:
        return Release(settings, new_namespace(name), dict(values), clients)

    with clients:
        yield make


@pytest.fixture(scope="session")
def release(new_release: Callable[..., Release], switches: None) -> Release:
    """The release of all tests that leave it as they found it."""
    release = new_release("shared")
    release.install()
    return release


@pytest.fixture(scope="session")
def volume(settings: Settings, new_namespace: object) -> Iterator[Callable[[str], dict[str, object]]]:
    """Values of an edge with a volume: of the cluster's own storage class, or a folder of the node; {} without."""
    made: list[str] = []

    def values(namespace: str) -> dict[str, object]:
        persistence: dict[str, object] = {"enabled": True, "size": "1Gi"}
        if settings.host_volumes:
            claim = f"{namespace}-data"
            kubectl("delete", "persistentvolume", claim, "--ignore-not-found")
            made.append(claim)
            fields = {"name": claim, "namespace": namespace, "path": f"{settings.host_volumes}/{claim}"}
            apply(namespace, *json.loads(read_manifest("volume.json", image=settings.edge_image, **fields)))
            kubectl("wait", "pod/opens-volume", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded")
            persistence["existingClaim"] = claim
        elif not has_default_storage():
            return {}
        return {"persistence": persistence}

    yield values
    if made:
        kubectl("delete", "persistentvolume", *made, "--wait=false")


def has_default_storage() -> bool:
    """Whether a claim that names no storage class gets a volume."""
    annotations = (item["metadata"].get("annotations", {}) for item in get("storageclasses")["items"])
    return any(one.get("storageclass.kubernetes.io/is-default-class") == "true" for one in annotations)


@pytest.fixture(scope="session", autouse=True)
def switches() -> None:
    """What the chart's notes tell an operator to switch on in Knative, for everything that the suite installs."""
    switch_on("config-autoscaler", "allow-zero-initial-scale", "true")
    switch_on("config-features", "kubernetes.podspec-persistent-volume-claim", "enabled")
    switch_on("config-features", "kubernetes.podspec-persistent-volume-write", "enabled")
