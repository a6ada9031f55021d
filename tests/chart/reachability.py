"""Who reaches whom, and on which ports, under a set of NetworkPolicies.

https://kubernetes.io/docs/concepts/services-networking/network-policies/: policies only allow, and a pod that one of
them selects for a direction is closed in that direction to all that none of them allows.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chart.rendering import Object


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod with its labels in a namespace, or an address outside the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


def may_enter(policies: Sequence[Object], pod: Peer, source: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether `source` may open a connection to a port of `pod`."""
    return _may(policies, pod, source, (port, protocol), "Ingress")


def may_leave(policies: Sequence[Object], pod: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether `pod` may open a connection to a port of `target`."""
    return _may(policies, pod, target, (port, protocol), "Egress")


def _may(policies: Sequence[Object], pod: Peer, other: Peer, port: tuple[int, str], direction: str) -> bool:
    at = [policy for policy in policies if _selects(policy, pod, direction)]
    rules = [rule for policy in at for rule in policy["spec"].get(direction.lower(), [])]
    end = {"Ingress": "from", "Egress": "to"}[direction]
    return not at or any(
        _allows_peer(rule.get(end), other, pod.namespace) and _allows_port(rule.get("ports"), port) for rule in rules
    )


def _selects(policy: Object, pod: Peer, direction: str) -> bool:
    spec = policy["spec"]
    # Written out or not, Ingress is always meant; Egress where there are rules for it.
    types = spec.get("policyTypes", ["Ingress", *(["Egress"] if "egress" in spec else [])])
    here = policy["metadata"].get("namespace", pod.namespace) == pod.namespace
    return here and direction in types and matches(spec["podSelector"], pod.labels)


def _allows_peer(peers: Sequence[dict[str, Any]] | None, other: Peer, own: str) -> bool:
    return not peers or any(_is(peer, other, own) for peer in peers)


def _is(peer: dict[str, Any], other: Peer, own: str) -> bool:
    if "ipBlock" in peer:
        if not other.address:
            return False
        address = ipaddress.ip_address(other.address)
        excepted = any(address in ipaddress.ip_network(one) for one in peer["ipBlock"].get("except", []))
        return address in ipaddress.ip_network(peer["ipBlock"]["cidr"]) and not excepted
    if other.address:
        return False
    if "namespaceSelector" in peer:
        name = {"kubernetes.io/metadata.name": other.namespace}
        return matches(peer["namespaceSelector"], name) and matches(peer.get("podSelector", {}), other.labels)
    return other.namespace == own and matches(peer["podSelector"], other.labels)


def _allows_port(ports: Sequence[dict[str, Any]] | None, wanted: tuple[int, str]) -> bool:
    if not ports:
        return True
    number, protocol = wanted
    for port in ports:
        low = port.get("port")
        assert not isinstance(low, str), f"named port {low}: which number it is depends on the pod"
        high = port.get("endPort", low)
        if port.get("protocol", "TCP") == protocol and (low is None or low <= number <= high):
            return True
    return False


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels; an empty one selects all."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        value, values = labels.get(one["key"]), one.get("values", [])
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[one["operator"]]
        if not holds:
            return False
    return True
