"""Whatever is asked for in whatever order, every row runs its steps once, alone in its size, within the limits."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from predictor.engine.schedule import Row, Schedule

SIZES = [(128, 128), (128, 192), (512, 512)]


def rows(request: str, count: int = 1, size: tuple[int, int] = (128, 128), steps: int = 3) -> list[Row]:
    return [Row(request, index, size, steps) for index in range(count)]


def test_a_newcomer_joins_at_the_next_step() -> None:
    schedule = Schedule(max_rows=4)
    schedule.add(rows("a", steps=10))
    schedule.advance(schedule.next_rows())
    schedule.add(rows("b"))
    assert [row.request for row in schedule.next_rows()] == ["a", "b"]


def test_rows_past_the_limit_wait_in_order_of_arrival() -> None:
    schedule = Schedule(max_rows=2)
    for name in "abc":
        schedule.add(rows(name, steps=1))
    assert [row.request for row in schedule.advance(schedule.next_rows())] == ["a", "b"]
    assert [row.request for row in schedule.next_rows()] == ["c"]


def test_sizes_take_turns() -> None:
    schedule = Schedule(max_rows=4)
    schedule.add(rows("small", steps=4))
    schedule.add(rows("large", steps=4, size=(512, 512)))
    turns = []
    for _ in range(4):
        batch = schedule.next_rows()
        turns.append(batch[0].request)
        schedule.advance(batch)
    assert turns in (["small", "large"] * 2, ["large", "small"] * 2)


def test_a_dropped_request_leaves_and_the_others_stay() -> None:
    schedule = Schedule(max_rows=2)
    schedule.add(rows("a"))
    schedule.add(rows("b", count=3))
    schedule.next_rows()
    assert len(schedule.drop("b")) == 3
    assert [row.request for row in schedule.next_rows()] == ["a"]


def test_a_lower_limit_sends_the_surplus_back_to_the_head_of_the_queue() -> None:
    schedule = Schedule(max_rows=4)
    for name in "abcde":
        schedule.add(rows(name, steps=1))
    schedule.next_rows()
    schedule.lower((128, 128), 2)
    served = []
    while len(schedule):
        batch = schedule.next_rows()
        assert len(batch) <= 2
        served += [row.request for row in schedule.advance(batch)]
    assert served == list("abcde")


def test_a_lowered_limit_is_forgotten_once_the_size_is_idle() -> None:
    schedule = Schedule(max_rows=4)
    schedule.add(rows("a", steps=1))
    schedule.lower((128, 128), 1)
    schedule.advance(schedule.next_rows())
    assert schedule.next_rows() == []
    schedule.add(rows("b", count=4))
    assert len(schedule.next_rows()) == 4


@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from(SIZES), st.integers(1, 6)), max_size=12), st.integers(1, 6)
)
def test_same_requests_same_plan(requests: list[tuple[int, tuple[int, int], int]], max_rows: int) -> None:
    def plan() -> list[list[tuple[str, int, int]]]:
        schedule = Schedule(max_rows)
        for number, (count, size, steps) in enumerate(requests):
            schedule.add(rows(str(number), count, size, steps))
        calls = []
        while batch := schedule.next_rows():
            calls.append([(row.request, row.index, row.step) for row in batch])
            schedule.advance(batch)
        return calls

    assert plan() == plan()


class Traffic(RuleBasedStateMachine):
    """Arrivals, steps, cancellations and shrinking memory in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule(max_rows=3)
        self.live: dict[str, list[Row]] = {}
        self.number = 0

    @rule(count=st.integers(1, 4), size=st.sampled_from(SIZES), steps=st.integers(1, 4))
    def arrive(self, count: int, size: tuple[int, int], steps: int) -> None:
        self.number += 1
        self.live[str(self.number)] = rows(str(self.number), count, size, steps)
        self.schedule.add(self.live[str(self.number)])

    @rule()
    def step(self) -> None:
        batch = self.schedule.next_rows()
        assert bool(batch) == bool(self.live), "work is left undone, or done for nobody"
        if batch:
            assert len({row.size for row in batch}) == 1
            assert len(batch) <= self.schedule.limit(batch[0].size)
            assert len({id(row) for row in batch}) == len(batch)
        before = {id(row): row.step for row in batch}
        for row in self.schedule.advance(batch):
            assert row.step == row.steps
            self.live[row.request].remove(row)
            if not self.live[row.request]:
                del self.live[row.request]
        assert all(row.step == before[id(row)] + 1 for row in batch)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.live:
            request = data.draw(st.sampled_from(sorted(self.live)))
            assert set(map(id, self.schedule.drop(request))) == set(map(id, self.live.pop(request)))

    @rule(size=st.sampled_from(SIZES), limit=st.integers(1, 3))
    def shrink(self, size: tuple[int, int], limit: int) -> None:
        self.schedule.lower(size, limit)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.schedule) == sum(map(len, self.live.values()))


def test_any_traffic() -> None:
    run_state_machine_as_test(Traffic)
