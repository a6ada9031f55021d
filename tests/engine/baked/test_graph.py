"""A graph's memory, on the host: whose it is and when it is used again. Real graphs need a GPU: `sdzero compare`."""

import ctypes

from predictor.engine.baked.device import Host, Memory
from predictor.engine.baked.graph import Graph

SIZE = 8


def doubling(host: Host) -> Graph:
    """Of one input, of which it writes the double and the triple."""
    place, *outputs = (host.allocate(SIZE) for _ in range(3))

    def replay() -> None:
        (number,) = read(place)
        for factor, output in enumerate(outputs, start=2):
            ctypes.c_int64.from_address(output.address).value = factor * number

    return Graph(host, [place], outputs, SIZE, replay)


def read(*memories: Memory) -> list[int]:
    return [ctypes.c_int64.from_address(memory.address).value for memory in memories]


def run(graph: Graph, number: int) -> list[Memory]:
    given = ctypes.c_int64(number)
    return graph.run([(ctypes.addressof(given), "int64", (1,))])


def test_a_call_leaves_the_results_of_those_before_as_they_were() -> None:
    graph = doubling(Host())
    first, second = run(graph, 5), run(graph, 7)
    assert read(*first, *second) == [10, 15, 14, 21]


def test_results_that_nobody_holds_give_their_memory_to_the_next_call() -> None:
    graph = doubling(Host())
    kept = run(graph, 1)
    addresses = {memory.address for memory in run(graph, 2)}
    again = run(graph, 3)
    assert {memory.address for memory in again} == addresses
    assert read(*kept, *again) == [2, 3, 6, 9]
