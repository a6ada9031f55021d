"""One model's revision: the activator's queue, the autoscaler's clock, and the pods that it makes and ends."""

import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from predictor.lab.sim.kpa import TICK, Decider
from predictor.lab.sim.measured import ColdStart
from predictor.lab.sim.meter import Meter
from predictor.lab.sim.pod import Pod, State
from predictor.lab.sim.scaler import UNKNOWN, Scaler

if TYPE_CHECKING:
    from predictor.lab.sim.world import World


class Revision:
    """Requests wait here until a pod takes them.

    Requests in flight are counted as Knative sees them, waiting included: the activator is in the path of every request
    as long as the burst capacity is larger than what the pods have left, which for pods with GPUs is always.
    """

    def __init__(self, world: "World", model: int) -> None:
        self.world = world
        self.model = model
        self.spec = world.configuration.autoscaling
        self.decider = Decider(self.spec)
        self.scaler = Scaler(self.spec, now=-math.inf)  # it has slept for ever
        self.queue: deque[int] = deque()
        self.pods: list[Pod] = []  # those that a replica count counts: pending, starting, ready
        self.ready: list[Pod] = []  # those that the activator sends to
        self.counted = 0  # of them, those that the autoscaler counts
        self.room = 0  # requests that ready pods would still take, where container_concurrency bounds them
        self.meter = Meter(self.spec.metric)
        self._desired = UNKNOWN
        self._excess = -1.0
        self._again: float | None = None
        self._ticking = False
        self._turn = 0
        if self.spec.min_scale:
            self._scale(0.0, self.spec.min_scale)
            for pod in self.pods:
                pod.loaded = True
            self.scaler.reconcile(0.0, self.spec.min_scale, -1.0, 0)

    def arrive(self, now: float, request: int) -> bool:
        """Take a request in; False if the queue is full."""
        if len(self.queue) >= self.world.configuration.queue_depth:
            return False
        first = self.meter.arrive(now)
        self.queue.append(request)
        if not self._ticking:
            self._ticking = True
            self.world.at(float(int(now) + 1), self._second, None)
        if first:
            self.decider.record(int(now), 1.0)
            if self._desired <= 0:
                self._decide(now)
        self._dispatch(now)
        return True

    def _dispatch(self, now: float) -> None:
        limit = self.spec.container_concurrency
        at, timeout = self.world.trace_at, self.spec.timeout_seconds
        while self.queue and self.ready and (self.room > 0 or not limit):
            request = self.queue.popleft()
            if now - at[request] > timeout:
                self.meter.count(now, -1)
                self.world.time_out(now, request)
                continue
            pod = self._pick(limit)
            self.room -= 1
            pod.take(now, request, self.world.trace_images[request], self.world.trace_steps[request])
            self._schedule(pod)

    def _pick(self, limit: int) -> Pod:
        ready = self.ready
        if not limit:
            one, other = self.world.chance.choice(ready), self.world.chance.choice(ready)
            return one if one.in_flight <= other.in_flight else other
        if limit > 3:
            for _ in ready:
                self._turn = (self._turn + 1) % len(ready)
                if ready[self._turn].in_flight < limit:
                    return ready[self._turn]
        return next(pod for pod in ready if pod.in_flight < limit)

    def _schedule(self, pod: Pod) -> None:
        if pod.engine.wake is not None and pod.engine.wake != pod.scheduled:
            pod.scheduled = pod.engine.wake
            self.world.at(pod.engine.wake, self._advance, pod)

    def _advance(self, now: float, pod: Pod) -> None:
        if pod.scheduled != now:
            return  # overtaken by a newcomer
        pod.scheduled = None
        predictor = self.world.configuration.predictor
        for request, freed in pod.engine.advance(now):
            rounds = -(-self.world.trace_images[request] // predictor.packers)
            outside = predictor.request_overhead + predictor.packing * rounds
            self.world.at(freed + outside, self._finish, (pod, request))
        self._schedule(pod)

    def _finish(self, now: float, done: tuple[Pod, int]) -> None:
        pod, request = done
        pod.in_flight -= 1
        self.meter.count(now, -1)
        self.world.answer(now, request)
        if pod.state is State.READY:
            self.room += 1
            self._dispatch(now)
        elif pod.drained and not pod.in_flight:
            self._leave(now, pod)
        self._rest(now, pod)

    def _rest(self, now: float, pod: Pod) -> None:
        """The pod is ready and nobody needs it, from now on, unless somebody does."""
        patience = self.world.configuration.engine_sleeps_after
        if patience is not None and not pod.in_flight:
            pod.idle_since = now
            self.world.at(now + patience, self._doze, (pod, now))

    def _doze(self, now: float, idle: tuple[Pod, float]) -> None:
        pod, since = idle
        if pod.idle_since == since and pod.state is not State.GONE:
            pod.sleep(now)

    # The autoscaler

    def _second(self, now: float, _: None) -> None:
        timeout, at = self.spec.timeout_seconds, self.world.trace_at
        while self.queue and now - at[self.queue[0]] > timeout:
            self.meter.count(now, -1)
            self.world.time_out(now, self.queue.popleft())
        second = int(now)
        report, busy = self.meter.close(now)
        if self.meter.known or self.ready:
            self.decider.record(second, report)
        self.meter.known = self.meter.known and busy
        poked = self._desired <= 0 and busy
        if second % TICK == 0 or poked:
            self._decide(now)
        idle = not (self.meter.in_flight or self.pods or self.meter.known)
        if idle and self.decider.stable.is_empty(second):
            self._ticking = False
        else:
            self.world.at(now + 1.0, self._second, None)

    def _decide(self, now: float) -> None:
        decision = self.decider.decide(now, self.counted)
        if decision is None:
            return
        excess = decision.excess_burst_capacity
        if decision.desired != self._desired or (excess < 0) != (self._excess < 0):
            self._desired, self._excess = decision.desired, excess
            self._reconcile(now)

    def _reconcile(self, now: float) -> None:
        verdict = self.scaler.reconcile(now, self._desired, self._excess, self.counted)
        if verdict.again is not None and (self._again is None or self._again > now + verdict.again):
            self._again = now + verdict.again
            self.world.at(self._again, self._look_again, None)
        if verdict.replicas is not None and verdict.replicas != len(self.pods):
            self._scale(now, verdict.replicas)

    def _look_again(self, now: float, _: None) -> None:
        if self._again == now:
            self._again = None
            self._reconcile(now)

    # Pods

    def _scale(self, now: float, replicas: int) -> None:
        for _ in range(replicas - len(self.pods)):
            pod = Pod(self.world.configuration.predictor, self.world.draw_start())
            self.pods.append(pod)
            self.world.result.replicas.append((now, 1))
            if not self.begin(now, pod):
                self.world.pending.append((self, pod))
        while len(self.pods) > replicas:
            # A ReplicaSet ends pods that wait before those that start before those that serve, and the youngest first.
            order = (State.PENDING, State.STARTING, State.READY)
            pod = min(reversed(self.pods), key=lambda pod: order.index(pod.state))
            self._end(now, pod)

    def begin(self, now: float, pod: Pod) -> bool:
        """Start a pod on a free GPU; False if there is none."""
        placement = self.world.cluster.place(now, self.model)
        if placement is None:
            return False
        pod.placement, pod.state = placement, State.STARTING
        self.world.hold(placement.bound, 1)
        self.world.started(pod)
        prepared = now == 0.0 and len(self.pods) <= self.spec.min_scale  # what the service keeps was up before
        before = placement.at + (0.0 if prepared else self.world.draw_floor())
        pod.awake_since = before
        start = ColdStart(0.0) if prepared else pod.start
        if placement.cold_files and not prepared:
            start = replace(start, ready=start.ready + self.world.configuration.predictor.page_cache_cold)
        self.world.at(before + start.ready, self._started, pod)
        self.world.at(before + start.counted, self._count_pod, pod)
        return True

    def _started(self, now: float, pod: Pod) -> None:
        if pod.state is not State.STARTING:
            return
        pod.state = State.READY
        self.ready.append(pod)
        self.room += self.spec.container_concurrency
        self._dispatch(now)
        self._rest(now, pod)
        if not self._ticking:
            self._ticking = True
            self.world.at(float(int(now) + 1), self._second, None)

    def _count_pod(self, now: float, pod: Pod) -> None:
        if pod.state is State.READY:
            pod.counted = True
            self.counted += 1
            self._reconcile(now)

    def _end(self, now: float, pod: Pod) -> None:
        self.pods.remove(pod)
        self.world.result.replicas.append((now, -1))
        if pod.state is State.PENDING:
            pod.state = State.GONE
            self.world.pending.remove((self, pod))
            return
        if pod.state is State.READY:
            self.ready.remove(pod)
            self.counted -= pod.counted
            self.room -= self.spec.container_concurrency - pod.in_flight
        pod.state = State.LEAVING
        assert pod.placement is not None
        drained = now + min(self.world.configuration.drain, self.spec.timeout_seconds)
        # On a node that is still being made, nothing runs that would have to drain.
        self.world.at(drained if pod.placement.bound <= now else pod.placement.bound, self._drained, pod)

    def _drained(self, now: float, pod: Pod) -> None:
        pod.drained = True
        if not pod.in_flight:
            self._leave(now, pod)

    def _leave(self, now: float, pod: Pod) -> None:
        self.world.at(now + self.world.configuration.teardown, self._gone, pod)

    def _gone(self, now: float, pod: Pod) -> None:
        pod.state = State.GONE
        self.world.let_go(now, pod)
