"""The pods that KServe and Knative make of an InferenceService, with the containers that they put in.

Scanners and the Pod Security Standards know pods; of an InferenceService they say nothing. What is followed here, at
the pinned versions: KServe's pkg/controller/v1beta1/inferenceservice/{components,reconcilers/knative} and
pkg/webhook/admission/pod/storage_initializer_injector.go, Knative's pkg/reconciler/revision/resources/.
"""

import copy
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import kubernetes_validate.utils
import yaml

from tests.chart.rendering import Object
from tests.chart.schemas import KUBERNETES
from tests.parts.definitions import KSERVE, folder

# Ports that Knative's and KServe's sidecars take in the pod.
SIDECAR_PORTS = {8008, 8012, 8013, 8022, 8112, 9081, 9088, 9090, 9091}
COMPONENTS = ("predictor", "transformer")
PREDICTOR = "kserve-container"
MODELS = "/mnt/models"  # where KServe puts what a storage URI names


def services(isvc: Object, runtimes: Sequence[Object] = ()) -> list[Object]:
    """The Knative Services that KServe makes of an InferenceService, the predictor's first."""
    return [_service(isvc, part, runtimes) for part in COMPONENTS if part in isvc["spec"]]


def pods(isvc: Object, runtimes: Sequence[Object] = ()) -> list[Object]:
    """The pods behind them, one of each."""
    return [pod(service) for service in services(isvc, runtimes)]


def component(service: Object) -> str:
    """Predictor or transformer."""
    return str(service["metadata"]["labels"]["component"])


def container(service: Object) -> dict[str, Any]:
    """The one that serves."""
    (only,) = service["spec"]["template"]["spec"]["containers"]
    return dict(only)


def pod(service: Object) -> Object:
    """The pod of a Knative Service's first revision as the kubelet gets it, with what is put in."""
    template = copy.deepcopy(service["spec"]["template"])
    name, metadata, spec = service["metadata"]["name"], template["metadata"], template["spec"]
    revision = f"{name}-00001"
    labels = metadata["labels"] | {
        "serving.knative.dev/service": name,
        "serving.knative.dev/configuration": name,
        "serving.knative.dev/revision": revision,
    }
    timeout = spec.pop("timeoutSeconds", 300)
    for key in ("responseStartTimeoutSeconds", "idleTimeoutSeconds", "containerConcurrency"):
        spec.pop(key, None)
    (user,) = spec["containers"]
    readiness = _user_container(user, revision, name)
    spec["containers"].append(_queue_proxy(user, readiness))
    spec["terminationGracePeriodSeconds"] = timeout
    spec.setdefault("enableServiceLinks", False)
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata | {"labels": labels}, "spec": spec}
    made["metadata"] |= {"name": f"{revision}-deployment", "namespace": service["metadata"]["namespace"]}
    if source := made["metadata"]["annotations"].pop("internal.serving.kserve.io/storage-initializer-sourceuri", None):
        _storage(spec, user, source)
    return made


def _service(isvc: Object, part: str, runtimes: Sequence[Object]) -> Object:
    given = copy.deepcopy(isvc["spec"][part])
    runtime = _runtime(given, runtimes) if "model" in given else {}
    spec = {key: value for key, value in given.items() if key in _pod_fields()}
    if runtime:
        spec = {key: value for key, value in runtime.items() if key in _pod_fields()} | spec
        spec["containers"] = [_runtime_container(runtime, given["model"], isvc["metadata"]["name"])]
    name, user = isvc["metadata"]["name"], spec["containers"][0]
    user["name"] = user.get("name") or PREDICTOR
    annotations = (
        isvc["metadata"].get("annotations", {}) | runtime.get("annotations", {}) | given.get("annotations", {})
    )
    if part == "transformer":
        concurrency = given.get("containerConcurrency")
        user["args"] = _transformer_arguments(user.get("args", []), isvc["metadata"], concurrency)
    elif source := _storage_uri(given, user):
        annotations["internal.serving.kserve.io/storage-initializer-sourceuri"] = source
    user["env"] = [*user.get("env", []), {"name": "INFERENCE_SERVICE_NAME", "value": name}]
    # https://kserve.github.io: zero must be asked for; a maximum of zero is none at all.
    annotations.setdefault("autoscaling.knative.dev/class", "kpa.autoscaling.knative.dev")
    annotations["autoscaling.knative.dev/min-scale"] = str(given.get("minReplicas", 1))
    annotations["autoscaling.knative.dev/max-scale"] = str(given.get("maxReplicas", 0))
    if "scaleTarget" in given:
        annotations["autoscaling.knative.dev/target"] = str(given["scaleTarget"])
    if "scaleMetric" in given:
        annotations["autoscaling.knative.dev/metric"] = given["scaleMetric"]
    top = {key: annotations.pop(key) for key in ("serving.knative.dev/rollout-duration",) if key in annotations}
    labels = isvc["metadata"].get("labels", {}) | runtime.get("labels", {}) | given.get("labels", {})
    labels |= {"serving.kserve.io/inferenceservice": name, "component": part}
    metadata = {"name": f"{name}-{part}", "namespace": isvc["metadata"]["namespace"]}
    timeouts = {
        key: given["timeout"] for key in ("timeoutSeconds", "responseStartTimeoutSeconds") if "timeout" in given
    }
    spec |= timeouts | {key: given[key] for key in ("containerConcurrency",) if key in given}
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": metadata | {"labels": labels, "annotations": top},
        "spec": {"template": template, "traffic": [{"latestRevision": True, "percent": 100}]},
    }


def _runtime(given: dict[str, Any], runtimes: Sequence[Object]) -> dict[str, Any]:
    asked = given["model"]["runtime"]
    (found,) = (runtime for runtime in runtimes if runtime["metadata"]["name"] == asked)
    return dict(copy.deepcopy(found["spec"]))


def _runtime_container(runtime: dict[str, Any], model: dict[str, Any], name: str) -> dict[str, Any]:
    """The runtime's container with what the model says: arguments appended, variables by name, the rest replaced."""
    (base,) = (one for one in runtime["containers"] if one["name"] == PREDICTOR)
    extension = {"modelFormat", "runtime", "storageUri", "storage", "runtimeVersion", "protocolVersion", "confidential"}
    own = {key: value for key, value in model.items() if key not in extension}
    variables = {one["name"]: one for one in (*base.get("env", []), *own.pop("env", []))}
    arguments = [*base.get("args", []), *own.pop("args", [])]
    made = base | own | {"args": [str(one).replace("{{.Name}}", name) for one in arguments]}
    return dict(made | {"env": list(variables.values())})


def _transformer_arguments(given: list[str], metadata: dict[str, Any], concurrency: int | None) -> list[str]:
    """What KServe appends unless it is there: exact words, with underscores."""
    host = f"{metadata['name']}-predictor.{metadata['namespace']}"
    appended = {"--model_name": metadata["name"], "--predictor_host": host, "--http_port": "8080"}
    if concurrency is not None:
        appended["--workers"] = str(concurrency)
    words = {word.split("=")[0] for word in given}
    return [*given, *itertools.chain(*((key, value) for key, value in appended.items() if key not in words))]


def _storage_uri(given: dict[str, Any], user: dict[str, Any]) -> str | None:
    if "model" in given:
        return given["model"].get("storageUri")
    return next((one["value"] for one in user.get("env", []) if one["name"] == "STORAGE_URI"), None)


def _storage(spec: dict[str, Any], user: dict[str, Any], source: str) -> None:
    """What KServe's webhook does to the pod for a storage URI."""
    for variable in user["env"]:
        if variable["name"] == "STORAGE_URI":
            variable["value"] = MODELS
    mount = {"name": "kserve-provision-location", "mountPath": MODELS, "readOnly": True}
    if source.startswith("pvc://"):
        claim, _, path = source.removeprefix("pvc://").partition("/")
        volume = {"name": "kserve-pvc-source", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        mount |= {"name": volume["name"]} | ({"subPath": path} if path else {})
    elif source.startswith("oci+native://"):
        reference = source.removeprefix("oci+native://")
        volume = {"name": "mnt-models", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}
        mount |= {"name": volume["name"], "subPath": "models"}
    else:
        volume = {"name": mount["name"], "emptyDir": {}}
        init = _storage_initializer() | {"args": [source, MODELS]}
        init["volumeMounts"] = [{"name": mount["name"], "mountPath": MODELS}]
        spec.setdefault("initContainers", []).append(init)
    spec.setdefault("volumes", []).append(volume)
    user.setdefault("volumeMounts", []).append(mount)


@functools.cache
def _kserve_values() -> dict[str, Any]:
    text = (folder(KSERVE) / "charts/kserve-resources/values.yaml").read_text(encoding="utf-8")
    return dict(yaml.load(text, Loader=yaml.CSafeLoader))


def _storage_initializer() -> dict[str, Any]:
    """The init container as KServe's own chart sets it up."""
    values = _kserve_values()["kserve"]["storage"]
    return {
        "name": "storage-initializer",
        "image": f"{values['image']}:{values['tag'] or 'v0.20.0'}",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": copy.deepcopy(values["resources"]),
        "securityContext": copy.deepcopy(values["containerSecurityContext"]),
    }


def _user_container(user: dict[str, Any], revision: str, service: str) -> dict[str, Any] | None:
    """Knative's changes to the container that serves; returns the readiness probe, which queue-proxy takes over."""
    port = next(iter(user.get("ports", [])), {}).get("containerPort", 8080)
    user["ports"] = [{"name": "user-port", "containerPort": port}]
    identity = {"PORT": str(port), "K_REVISION": revision, "K_CONFIGURATION": service, "K_SERVICE": service}
    user["env"] = [*user.get("env", []), *({"name": key, "value": value} for key, value in identity.items())]
    user["lifecycle"] = {"preStop": {"httpGet": {"port": 8022, "path": "/wait-for-drain"}}}
    user.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    liveness = user.get("livenessProbe", {})
    for handler in ("httpGet", "tcpSocket"):
        if handler in liveness:
            liveness[handler]["port"] = port
    probe = user.get("readinessProbe")
    if probe and {"httpGet", "tcpSocket", "grpc"} & probe.keys():
        del user["readinessProbe"]
    return probe


def _queue_proxy(user: dict[str, Any], readiness: dict[str, Any] | None) -> dict[str, Any]:
    """Knative's sidecar, as its defaults make it."""
    serving = {"name": "queue-port", "containerPort": 8012}
    probe = {key: value for key, value in (readiness or {}).items() if key not in ("httpGet", "tcpSocket", "grpc")}
    headers = [{"name": "K-Network-Probe", "value": "queue"}]
    return {
        "name": "queue-proxy",
        "image": "knative.dev/serving/cmd/queue:v0.48.1",
        "resources": {"requests": {"cpu": "25m"}},
        "ports": [
            {"name": "http-queueadm", "containerPort": 8022},
            {"name": "http-autometric", "containerPort": 9090},
            {"name": "http-usermetric", "containerPort": 9091},
            serving,
            {"name": "https-port", "containerPort": 8112},
        ],
        "readinessProbe": probe | {"httpGet": {"port": serving["containerPort"], "httpHeaders": headers}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "env": [{"name": "USER_PORT", "value": str(user["ports"][0]["containerPort"])}],
    }


@functools.cache
def _pod_fields() -> frozenset[str]:
    """The fields of a pod's specification; what else a component has is KServe's."""
    place = f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict/_definitions.json"
    definitions = kubernetes_validate.utils.schema_contents(place, KUBERNETES)["$defs"]
    return frozenset(definitions["io.k8s.api.core.v1.PodSpec"]["properties"])


def workloads(rendered: Sequence[Object]) -> Iterator[Object]:
    """Every pod of these objects: behind InferenceServices, Jobs, CronJobs, DaemonSets, Deployments, and pods."""
    runtimes = [one for one in rendered if one["kind"] in ("ClusterServingRuntime", "ServingRuntime")]
    for one in rendered:
        match one["kind"]:
            case "InferenceService":
                yield from pods(one, runtimes)
            case "Pod":
                yield one
            case "CronJob":
                yield _of_template(one, one["spec"]["jobTemplate"]["spec"]["template"])
            case "Job" | "DaemonSet" | "Deployment" | "StatefulSet":
                yield _of_template(one, one["spec"]["template"])


def _of_template(owner: Object, template: dict[str, Any]) -> Object:
    metadata = {"name": owner["metadata"]["name"], "namespace": owner["metadata"]["namespace"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template.get("metadata", {}) | metadata,
        "spec": template["spec"],
    }
