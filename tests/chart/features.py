"""The switches of Knative's config-features that a Knative Service needs: pkg/apis/serving/fieldmask.go, v0.48."""

from tests.chart.rendering import Object

# Of a pod's specification: what Knative takes only with a flag of config-features set to enabled.
FLAGS = {
    "affinity": "kubernetes.podspec-affinity",
    "topologySpreadConstraints": "kubernetes.podspec-topologyspreadconstraints",
    "hostAliases": "kubernetes.podspec-hostaliases",
    "nodeSelector": "kubernetes.podspec-nodeselector",
    "runtimeClassName": "kubernetes.podspec-runtimeclassname",
    "tolerations": "kubernetes.podspec-tolerations",
    "securityContext": "kubernetes.podspec-securitycontext",
    "shareProcessNamespace": "kubernetes.podspec-shareprocessnamespace",
    "priorityClassName": "kubernetes.podspec-priorityclassname",
    "schedulerName": "kubernetes.podspec-schedulername",
    "initContainers": "kubernetes.podspec-init-containers",
    "dnsPolicy": "kubernetes.podspec-dnspolicy",
    "dnsConfig": "kubernetes.podspec-dnsconfig",
    "hostIPC": "kubernetes.podspec-hostipc",
    "hostPID": "kubernetes.podspec-hostpid",
    "hostNetwork": "kubernetes.podspec-hostnetwork",
}
VOLUME_FLAGS = {
    "persistentVolumeClaim": "kubernetes.podspec-persistent-volume-claim",
    "hostPath": "kubernetes.podspec-volumes-hostpath",
    "csi": "kubernetes.podspec-volumes-csi",
    "image": "kubernetes.podspec-volumes-image",
}
# What Knative takes without a flag. emptyDir has one, which is on by default.
FREE = {
    "serviceAccountName",
    "containers",
    "volumes",
    "imagePullSecrets",
    "enableServiceLinks",
    "automountServiceAccountToken",
}
FREE_VOLUMES = {"name", "secret", "configMap", "projected", "emptyDir"}
FREE_IN_CONTAINER = {
    "name",
    "args",
    "command",
    "env",
    "workingDir",
    "envFrom",
    "image",
    "imagePullPolicy",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
}


def needed(service: Object) -> set[str]:
    """The flags of Knative's config-features that a Knative Service needs.

    Raises:
        ValueError: naming what Knative refuses under any flag.
    """
    spec = service["spec"]["template"]["spec"]
    flags: set[str] = set()
    revision = {"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds"}
    for key in spec.keys() - FREE - revision:
        if key not in FLAGS:
            raise ValueError(f"{service['metadata']['name']}: Knative takes no {key}")
        flags.add(FLAGS[key])
    for volume in spec.get("volumes", []):
        for key in volume.keys() - FREE_VOLUMES:
            if key not in VOLUME_FLAGS:
                raise ValueError(f"{service['metadata']['name']}: Knative takes no volume of {key}")
            flags.add(VOLUME_FLAGS[key])
        if not volume.get("persistentVolumeClaim", {"readOnly": True}).get("readOnly"):
            flags.add("kubernetes.podspec-persistent-volume-write")
    for one in (*spec["containers"], *spec.get("initContainers", [])):
        if refused := one.keys() - FREE_IN_CONTAINER:
            raise ValueError(f"{service['metadata']['name']}: Knative takes no {sorted(refused)} of a container")
        if one.get("securityContext", {}).get("capabilities", {}).get("add"):
            flags.add("kubernetes.containerspec-addcapabilities")
        if any(
            {"fieldRef", "resourceFieldRef"} & set(variable.get("valueFrom", {})) for variable in one.get("env", [])
        ):
            flags.add("kubernetes.podspec-fieldref")
        if len(one.get("ports", [])) > 1:
            raise ValueError(f"{service['metadata']['name']}: Knative takes one port")
    return flags
