"""An upgrade from the last tagged chart is one that a cluster takes; and what finds that out is right."""

import subprocess
from pathlib import Path

import pytest

from tests.chart.rendering import CASES, CHART, ROOT, Refused, template
from tests.chart.upgrade import Change, at, changes, last_tag, refused

PATH = str(CHART.relative_to(ROOT))


def test_an_upgrade_from_the_last_tag_is_one_that_a_cluster_takes(tmp_path, record_property):
    tag = last_tag(ROOT, f"{PATH}/Chart.yaml")
    if tag is None:
        pytest.skip("no tag has the chart yet")
    before = at(ROOT, tag, PATH, tmp_path)
    said = {}
    for case in CASES:
        if not (then := before / "ci" / case.name).exists():
            continue
        try:
            # With the values of then: an upgrade keeps a user's values.
            new = template(4, then)
        except Refused as refusal:
            said[case.stem] = [f"values of {tag} are refused: {refusal}"]
            continue
        found = changes(template(4, then, before), new)
        record_property(case.stem, [f"{change.object} {change.place}" for change in found])
        if wrong := refused(found):
            said[case.stem] = wrong
    assert said == {}


def test_a_chart_upgrades_to_itself(case):
    assert changes(template(4, case), template(4, case)) == []


# --- the logic, on a repository with two versions of a chart

OLD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {version: "1"}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
data: {key: {{ randAlphaNum 8 | b64enc }}}
"""


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository whose only tag has a chart."""
    folder = tmp_path / "repository"
    templates = folder / "charts" / "web" / "templates"
    templates.mkdir(parents=True)
    (templates.parent / "Chart.yaml").write_text("{apiVersion: v2, name: web, version: 1.0.0}", encoding="utf-8")
    (templates / "all.yaml").write_text(OLD, encoding="utf-8")
    git(folder, "init", "--quiet")
    commit(folder)
    git(folder, "tag", "v1.0.0")
    (folder / "later").touch()
    commit(folder)
    return folder


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a")


def upgraded(repository: Path, *replaced: tuple[str, str], into: Path) -> list[Change]:
    """What changes from the tag to a chart with these texts replaced."""
    chart = repository / "charts" / "web"
    text = OLD
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    (chart / "templates" / "all.yaml").write_text(text, encoding="utf-8")
    tag = last_tag(repository, "charts/web/Chart.yaml")
    assert tag == "v1.0.0"
    return changes(template(4, {}, at(repository, tag, "charts/web", into)), template(4, {}, chart))


def test_drawn_secrets_are_no_change(repository, tmp_path):
    assert upgraded(repository, into=tmp_path) == []


def test_what_may_change(repository, tmp_path):
    found = upgraded(repository, ('version: "1"', 'version: "2"'), ("replicas: 1", "replicas: 2"), into=tmp_path)
    assert found == [
        Change("Deployment/web", "metadata.labels.version", "1", "2"),
        Change("Deployment/web", "spec.replicas", "1", "2"),
    ]
    assert refused(found) == []


def test_a_larger_claim_is_fine(repository, tmp_path):
    assert refused(upgraded(repository, ("storage: 1Gi", "storage: 2Gi"), into=tmp_path)) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{app: web}", "{app: site}", "Deployment/web: spec.selector.matchLabels.app cannot change: web → site"),
        (
            "[ReadWriteOnce]",
            "[ReadWriteMany]",
            "PersistentVolumeClaim/data: spec.accessModes[0] cannot change: ReadWriteOnce → ReadWriteMany",
        ),
        ("name: data", "name: files", "PersistentVolumeClaim/data: would be deleted with what it holds"),
        ("name: key", "name: keys", "Secret/key: would be deleted with what it holds"),
        ("data: {key", "type: x/y\ndata: {key", "Secret/key: type cannot change: absent → x/y"),
    ],
)
def test_what_a_cluster_refuses_or_loses(repository, tmp_path, old, new, words):
    assert refused(upgraded(repository, (old, new), into=tmp_path)) == [words]


def test_a_repository_without_tags_has_no_last_one(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a").touch()
    commit(tmp_path)
    assert last_tag(tmp_path, "a") is None
    git(tmp_path, "tag", "v1")
    assert last_tag(tmp_path, "a") == "v1"
    assert last_tag(tmp_path, "b") is None
