"""Installed, tested, upgraded and rolled back under load, uninstalled: the life of a release."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.asking import OPENAI, SQUARE, Answer, ask, order, picture_of
from tests.e2e.cluster import eventually, helm, kubectl, objects
from tests.e2e.release import NAME, Release

CLIENTS = 2


@pytest.fixture(scope="module")
def life(new_release) -> Release:
    """A release that has a namespace and nothing else."""
    return new_release("life")


@pytest.fixture(scope="module")
def before(life: Release) -> set[str]:
    """Everything that is there before it is installed."""
    return objects(life.namespace)


def test_installed_from_nothing_to_the_first_picture(life: Release, before: set[str], facts) -> None:
    began = time.monotonic()
    life.install()
    installed = time.monotonic()
    SQUARE.assert_in(picture_of(ask(life.client(), OPENAI, order(SQUARE, 1))))
    facts["helm install until ready"] = f"{installed - began:.1f} s"
    facts["and until the first picture"] = f"{time.monotonic() - began:.1f} s"


def test_helm_test_succeeds(life: Release) -> None:
    said = helm("test", NAME, "--namespace", life.namespace, "--timeout", "5m")
    assert "Phase:          Succeeded" in said


class Load:
    """Clients that ask one after the other, without retries, and remember every answer."""

    def __init__(self, client: httpx.Client) -> None:
        self.answers: list[Answer] = []
        self.errors: list[Exception] = []
        self._client = client
        self._seeds = itertools.count(1000)
        self._ends = threading.Event()

    def ask(self) -> None:
        while not self._ends.is_set():
            try:
                self.answers.append(ask(self._client, OPENAI, order(SQUARE, next(self._seeds))))
            except httpx.HTTPError as error:
                self.errors.append(error)

    def end(self) -> None:
        self._ends.set()

    def assert_nothing_failed(self) -> None:
        assert self.errors == []
        assert [(one.status, one.body) for one in self.answers if one.status != 200] == []
        for answer in self.answers:
            SQUARE.assert_in(picture_of(answer))


@contextlib.contextmanager
def load_on(release: Release) -> Iterator[Load]:
    """Load from before the block until after it."""
    load = Load(release.client())
    threads = [threading.Thread(target=load.ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(load.answers) > CLIENTS, 120, "load")
        yield load
        asked = len(load.answers)
        eventually(lambda: len(load.answers) > asked + 2 * CLIENTS, 120, "answers after the change")
    finally:
        load.end()
        for thread in threads:
            thread.join()


def test_upgraded_under_load_without_a_failed_request(life: Release, facts) -> None:
    changed = {"labels": {"e2e": "second"}}
    with load_on(life) as load:
        life.upgrade("predictor", "transformer", predictor=changed, edge=changed)
        assert_all_pods_have(life, "e2e=second")
    load.assert_nothing_failed()
    facts["answers meanwhile"] = len(load.answers)


def test_rolled_back_under_load_without_a_failed_request(life: Release, facts) -> None:
    with load_on(life) as load:
        life.rollback("predictor", "transformer")
        assert_all_pods_have(life, "!e2e")
    load.assert_nothing_failed()
    facts["answers meanwhile"] = len(load.answers)


def assert_all_pods_have(release: Release, selector: str) -> None:
    """Every pod that is not on its way out has these labels."""

    def named(*options: str) -> set[str]:
        return set(kubectl("get", "pods", "-n", release.namespace, "-o", "name", *options).split())

    eventually(lambda: named() == named("--selector", selector) != set(), 300, f"only pods with {selector}")


def test_uninstalled_without_a_trace(life: Release, before: set[str]) -> None:
    helm("uninstall", NAME, "--namespace", life.namespace)
    eventually(lambda: objects(life.namespace) == before, 300, f"nothing but {before}")
