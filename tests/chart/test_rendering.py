"""Helm 3 and Helm 4 take the chart, and make the same of it."""

import ast

import yaml

from predictor import __version__
from tests.chart.rendering import CHART, ROOT, Object, identity, lint, rendered
from tests.chart.upgrade import changes

# field that refers to something by `name` → its kind
KINDS = {
    "secretKeyRef": "Secret",
    "secretRef": "Secret",
    "imagePullSecrets": "Secret",
    "configMapKeyRef": "ConfigMap",
    "configMapRef": "ConfigMap",
    "configMap": "ConfigMap",
}


def test_lint_finds_nothing(helm, case):
    run = lint(helm, case)
    assert (run.returncode, "[WARNING]" in run.stdout, "[INFO]" in run.stdout) == (0, False, False), run.stdout


def test_lint_finds_nothing_with_the_defaults(helm):
    run = lint(helm, {})
    assert run.returncode == 0, run.stdout


def test_both_helms_render_the_same(case):
    assert changes(rendered(3, case), rendered(4, case)) == []


def test_the_version_is_the_package_s():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == __version__
    # SemVer has no local or development part spelt as Python spells it.
    assert chart["version"].split("-")[0] == ".".join(__version__.split(".")[:3])


def test_every_object_is_in_the_release_s_namespace_and_carries_its_labels(objects):
    cluster_wide = {"ClusterServingRuntime", "ClusterRole", "ClusterRoleBinding", "PriorityClass"}
    for one in objects:
        labels = one["metadata"].get("labels", {})
        assert labels.get("app.kubernetes.io/name") == "sdzero", identity(one)
        assert labels.get("app.kubernetes.io/instance") == "sdzero", identity(one)
        assert labels.get("app.kubernetes.io/managed-by") == "Helm", identity(one)
        if one["kind"] not in cluster_wide:
            assert one["metadata"].get("namespace") == "pictures", identity(one)


def test_only_tests_are_hooks(objects):
    hooks = {identity(one): hook for one in objects if (hook := _hook(one))}
    assert set(hooks.values()) <= {"test"}


def test_what_objects_name_is_there_or_the_user_s(objects, case):
    """Secrets, ConfigMaps, ServiceAccounts and claims that are referred to: of the chart, or named in the values."""
    made = {(one["kind"], one["metadata"]["name"]) for one in objects}
    given = case.read_text(encoding="utf-8")
    for kind, name in references(objects):
        assert (kind, name) in made or name in given, f"{kind}/{name}: nobody makes it"


def test_prewarm_s_script_is_python():
    for script in (CHART / "files").glob("*.py"):
        ast.parse(script.read_text(encoding="utf-8"), str(script.relative_to(ROOT)))


def references(part: object) -> set[tuple[str, str]]:
    """What an object refers to by name: (kind, name)."""
    found: set[tuple[str, str]] = set()
    if isinstance(part, list):
        return found.union(*map(references, part))
    if not isinstance(part, dict):
        return found
    for key, value in part.items():
        if key in KINDS:
            found |= {(KINDS[key], one["name"]) for one in (value if isinstance(value, list) else [value])}
        elif key == "secret" and isinstance(value, dict):
            found.add(("Secret", value.get("secretName", value.get("name"))))
        elif key == "serviceAccountName":
            found.add(("ServiceAccount", value))
        elif key == "claimName":
            found.add(("PersistentVolumeClaim", value))
        found |= references(value)
    return found


def _hook(one: Object) -> str | None:
    return one["metadata"].get("annotations", {}).get("helm.sh/hook")
