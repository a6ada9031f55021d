"""Nodes with GPUs: who gets one, when a node comes and goes, and what a node has already read.

A pod that finds no free GPU waits; a node is ordered for it where the pool may grow, and given back after it has been
idle. Pure but for its random generator: the caller brings the time.
"""

import random
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Pool:
    """GPU nodes; periods in seconds.

    Raises:
        ValueError: a node count or a range that cannot be.
    """

    gpus_per_node: int = 1
    min_nodes: int | None = None  # always up, image and files at hand; None: a GPU is free whenever one is asked for
    max_nodes: int = 0
    provision: tuple[float, float] = (60.0, 90.0)  # from the order to a node that takes pods
    pull: float = 0.0  # of the image, on a node that does not have it
    consolidate_after: float = 600.0  # an idle node above min_nodes is given back

    def __post_init__(self) -> None:
        if self.gpus_per_node < 1:
            raise ValueError(f"gpus_per_node: got {self.gpus_per_node}; allowed: 1 or more")
        if self.min_nodes is not None and not 0 <= self.min_nodes <= self.max_nodes:
            raise ValueError(f"max_nodes: got {self.max_nodes}; allowed: min_nodes, {self.min_nodes}, or more")
        if self.max_nodes and self.min_nodes is None:
            raise ValueError(f"max_nodes: got {self.max_nodes} without min_nodes; allowed: both or neither")
        if self.max_nodes == 0 and self.min_nodes == 0:
            raise ValueError("max_nodes: got 0; allowed: 1 or more, for no pod could ever start")
        if not 0 <= self.provision[0] <= self.provision[1]:
            raise ValueError(f"provision: got {self.provision}; allowed: from 0, the second no smaller")


@dataclass(eq=False)
class Node:
    """One machine, up since `since`."""

    free: int
    since: float
    ready: float  # takes pods from here on
    permanent: bool
    has_image: bool
    read: set[Hashable] = field(default_factory=set)  # whose files are in its page cache
    idle_since: float = 0.0


@dataclass(frozen=True)
class Placement:
    """A GPU for a pod: on `node` (None: an unbounded pool), its own from `bound`, its image there at `at`."""

    node: Node | None
    bound: float
    at: float
    cold_files: bool  # they have to be read from storage


class Cluster:
    """Who holds which GPU. `node_seconds` are the lives of nodes that are gone."""

    def __init__(self, pool: Pool, chance: random.Random) -> None:
        self.pool = pool
        self._chance = chance
        self.nodes = [
            Node(pool.gpus_per_node, 0.0, 0.0, permanent=True, has_image=True) for _ in range(pool.min_nodes or 0)
        ]
        self.node_lives: list[float] = []

    def place(self, now: float, model: Hashable) -> Placement | None:
        """A GPU for a pod of `model`; None if it has to wait for one."""
        if self.pool.min_nodes is None:
            return Placement(None, now, now, cold_files=False)
        free = [node for node in self.nodes if node.free]
        if not free and len(self.nodes) < self.pool.max_nodes:
            ready = now + self._chance.uniform(*self.pool.provision)
            free = [Node(self.pool.gpus_per_node, now, ready, permanent=False, has_image=False)]
            self.nodes += free
        if not free:
            return None
        # The node that can start it soonest, files at hand first.
        node = min(free, key=lambda node: (max(now, node.ready), not node.has_image, model not in node.read))
        bound = max(now, node.ready)
        at = bound + (0.0 if node.has_image else self.pool.pull)
        cold = model not in node.read and not node.permanent
        node.free -= 1
        node.has_image = True
        node.read.add(model)
        return Placement(node, bound, at, cold)

    def release(self, now: float, node: Node) -> bool:
        """Give a GPU back; returns whether the node is idle now, so that `retire` has to be asked later."""
        node.free += 1
        node.idle_since = now
        return node.free == self.pool.gpus_per_node and not node.permanent

    def retire(self, now: float, node: Node) -> None:
        """Give the node back if it has been idle for long enough."""
        unused = node in self.nodes and node.free == self.pool.gpus_per_node
        if unused and now - node.idle_since >= self.pool.consolidate_after - 1e-6:
            self.nodes.remove(node)
            self.node_lives.append(now - node.since)

    def lives(self, end: float) -> list[float]:
        """Seconds that each node was up until `end`."""
        return self.node_lives + [end - node.since for node in self.nodes]
