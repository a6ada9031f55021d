"""The product's own phases of a start, asked for after the picture came: at an edge, so that nobody wakes."""

import http.client
import json
from contextlib import suppress
from typing import Final

from loadtest.connections import Connections
from loadtest.job import TargetSpec

_SECONDS: Final = 10.0
_SKEW: Final = 5.0  # seconds by which the edge's clock may differ


def asked_at_edge(target: TargetSpec, key: str | None, since: float, until: float) -> dict[str, float]:
    """PROCESS-PHASE → seconds of the edge's latest cold start between two moments; empty if it cannot tell.

    A predictor that is asked directly has no such list, another product none at all; a report then says that the
    product's view is missing.
    """
    if not target.url.startswith("http"):
        return {}
    connections = Connections(target.url, _SECONDS, verify=target.verify)
    headers = target.headers | ({"Authorization": f"Bearer {key}"} if key else {})
    with suppress(OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        connection = connections.take().http
        try:
            connection.request("GET", f"{connections.prefix}/v1/cold-starts?limit=5", headers=headers)
            reply = connection.getresponse()
            body = reply.read()
        finally:
            connection.close()
        if reply.status == 200:
            for one in json.loads(body)["data"]:
                if since - _SKEW <= one["at"] <= until + _SKEW:
                    return {str(name): float(seconds) for name, seconds in one["phases"].items()}
    return {}
