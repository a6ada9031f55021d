"""A target's description → whoever sends to it."""

from collections.abc import Mapping

from loadtest.asking import HttpSender
from loadtest.connections import Connections
from loadtest.dialects import DIALECTS, GRPC
from loadtest.job import TargetSpec
from loadtest.openloop import Sender
from predictor.clock import now


def sender(spec: TargetSpec, timeout: float, key: str | None) -> Sender:
    """Raises ValueError for a dialect or an address that is none."""
    headers: Mapping[str, str] = spec.headers | ({"Authorization": f"Bearer {key}"} if key else {})
    if spec.dialect == GRPC:
        # Imported here: it needs the package tritonclient, which the other dialects do not.
        from loadtest.grpc import GrpcSender

        return GrpcSender(spec.url, spec.model, headers, now)
    if spec.dialect not in DIALECTS:
        raise ValueError(f"dialect: got {spec.dialect!r}; allowed: {', '.join([*DIALECTS, GRPC])}")
    connections = Connections(spec.url, timeout, verify=spec.verify)
    return HttpSender(DIALECTS[spec.dialect], spec.model, connections, headers, now)
