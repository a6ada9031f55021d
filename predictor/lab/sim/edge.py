"""The edge's share: a request that repeats an earlier one never reaches a GPU.

Requests with an identity are looked up as the product does: answered from the cache if the picture exists and has not
expired, joined if it is being drawn. A trace without identities can be given a share of repeats instead.
"""

import random
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EdgeCache:
    """`repeat_share` stands in for identities where a trace has none.

    Raises:
        ValueError: a share outside 0 to 1, or a time below 0.
    """

    ttl: float = 86_400.0  # seconds that a picture is kept; 0 keeps none
    hit_seconds: float = 0.02  # of a request that the edge answers by itself
    repeat_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.repeat_share <= 1:
            raise ValueError(f"repeat_share: got {self.repeat_share}; allowed: 0 to 1")
        if self.ttl < 0 or self.hit_seconds < 0:
            raise ValueError(f"ttl and hit_seconds: got {self.ttl} and {self.hit_seconds}; allowed: from 0")


class Edge:
    """What has been drawn, and what is being drawn for whom."""

    def __init__(self, cache: EdgeCache, chance: random.Random) -> None:
        self.cache = cache
        self._chance = chance
        self._drawn: dict[Hashable, float] = {}
        self._drawing: dict[Hashable, list[int]] = {}
        self._identity: dict[int, Hashable] = {}
        self.hits = 0
        self.joined = 0

    def admit(self, now: float, request: int, identity: Hashable | None) -> float | None:
        """Seconds until the edge has answered; 0 for a request that joined another; None: it needs a GPU."""
        cache = self.cache
        if identity is None:
            if cache.repeat_share and self._chance.random() < cache.repeat_share:
                self.hits += 1
                return cache.hit_seconds
            return None
        drawn = self._drawn.get(identity)
        if drawn is not None and now - drawn < cache.ttl:
            self.hits += 1
            return cache.hit_seconds
        followers = self._drawing.get(identity)
        if followers is not None:
            followers.append(request)
            self.joined += 1
            return 0.0
        self._drawing[identity] = []
        self._identity[request] = identity
        return None

    def drawn(self, now: float, request: int) -> list[int]:
        """The request's picture exists; returns those that had joined it."""
        identity = self._identity.pop(request, None)
        if identity is None:
            return []
        self._drawn[identity] = now
        return self._drawing.pop(identity)

    def lost(self, request: int) -> list[int]:
        """The request ends without a picture; returns those that had joined it and end with it."""
        identity = self._identity.pop(request, None)
        return [] if identity is None else self._drawing.pop(identity)
