"""How far the ruler is off on this machine, now: `python -m loadtest.calibration`.

Drives the golden server, compares what the suite says with what the server did, and exits with 1 if a count differs, or
a time by more than 1 % or 5 ms, whichever is larger. Machines that are busy with something else fail it, and should.
With `--requests N` it looks at no times: it exits with 1 unless every single request has the outcome that the server
gave it, however busy the machine is.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from loadtest import samples
from loadtest.golden import Script, Truth
from loadtest.job import TargetSpec
from loadtest.phases import FIRST_REQUEST, PROCESS
from loadtest.quantiles import Latencies
from loadtest.run import Run, run
from loadtest.samples import Sample
from loadtest.scenarios import SCENARIOS, changed

_OUTCOMES: Final = {
    "ok": "ok", "lose": "lost", "cut": "lost", "refuse": "refused", "fail": "failed", "twice": "duplicated",
    "wrong": "wrong", "small": "wrong",
}  # fmt: skip
# Whatever has one outcome for certain: a swapped picture may be the right one, and patience depends on the machine.
_EVERY: Final = Script(service=0.05, lose=101, refuse=97, fail=89, twice=83, cut=79, wrong=73, small=71)
_BATCH: Final = 50_000  # requests that are held in memory at once
_FEWEST: Final = 100  # requests of a batch on average: a Poisson schedule of very few may have none
_SHOWN: Final = 10  # requests of a batch that are described
_PHASES: Final = {**dict.fromkeys(PROCESS, 0.25), FIRST_REQUEST: 0.02}
_UNTOLD: Final = 0.4
_SLOW: Final = 40.0  # requests a second


@dataclass(frozen=True)
class Check:
    """One thing that the suite says, and what the server knows; seconds unless it is a count."""

    name: str
    said: float
    true: float
    count: bool = False

    def named(self, before: str) -> "Check":
        """The same, of something."""
        return replace(self, name=before + self.name)

    @property
    def good(self) -> bool:
        """Within 1 % or 5 ms; a count is exact."""
        off = abs(self.said - self.true)
        return off == 0 if self.count else off <= max(0.01 * abs(self.true), 0.005)


def main(argv: Sequence[str]) -> int:
    """Print every check; returns 0 if all are good."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.calibration", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rate", type=float, default=500.0, help="open-loop requests a second [%(default)g]")
    parser.add_argument("--seconds", type=float, default=20.0, help="[%(default)g]")
    parser.add_argument("--cycles", type=int, default=3, help="cold starts [%(default)d]")
    parser.add_argument("--requests", type=int, metavar="N", help="no times, but the outcome of each of N or more")
    given = parser.parse_args(argv)
    if given.requests is not None:
        if given.requests < 1:
            parser.error(f"--requests: got {given.requests}; allowed: 1 or more")
        for name in ("seconds", "cycles"):
            if getattr(given, name) != parser.get_default(name):
                parser.error(f"--{name}: not allowed with --requests")
        return _shown(_outcomes(given.requests, given.rate))
    fast, late = _warm(given.rate, given.seconds, Script(service=0.05, lose=101, refuse=97, fail=89, twice=83))
    # Rarely enough that the answers which a stall holds back do not come in by the thousand.
    stalled, _ = _warm(_SLOW, 30.0, Script(service=0.05, stalls=((10.0, 2.0),)))
    status = _shown(
        [
            *(check.named(f"{given.rate:g}/s: ") for check in fast),
            *(check.named("stalled: ") for check in stalled),
            *_cold(given.cycles),
        ]
    )
    print(f"at {given.rate:g}/s intended starts were missed by: {_missed(late)}")
    return status


def differing(found: Sequence[Sample], truths: Sequence[Truth]) -> list[str]:
    """Requests that did not reach the server exactly once, or whose outcome is not what it did to them; in words.

    Args:
        found: one sample for each request of a run of one cycle.
        truths: what the server did in it, in any order.
    """
    done: defaultdict[int, list[str]] = defaultdict(list)
    for truth in truths:
        done[_request(truth)].append(truth.deed)
    said = {sample.index: sample for sample in found}
    words = []
    for index in sorted(said.keys() | done.keys()):
        sample, deeds = said.get(index), done[index]
        if sample is None or [sample.outcome] != [_OUTCOMES[deed] for deed in deeds]:
            told = f"{sample.outcome} {sample.error}".strip() if sample else "nothing"
            words.append(f"request {index}: the server did {', '.join(deeds) or 'nothing'}; the suite says {told}")
    return words


def _outcomes(requests: int, rate: float) -> list[Check]:
    """Every request against what the server did to it; batch after batch, each with a server of its own."""
    said: Counter[str] = Counter()
    true: Counter[str] = Counter()
    count = different = 0
    while count < requests:
        seconds = min(_BATCH, max(_FEWEST, requests - count)) / rate
        # Only of pictures that are asked for repeatedly can the suite know that one is wrong.
        pictures = ["mix.repeats=1", "mix.pool=4", "mix.sizes=64x64"]
        arrivals = [f"arrivals.rate={rate}", f"arrivals.seconds={seconds}"]
        done, truths = _driven("warm", [*arrivals, *pictures, "warm_up=0"], _EVERY)
        found = samples.outcomes(done.attempts)
        said.update(sample.outcome for sample in found)
        true.update(_OUTCOMES[truth.deed] for truth in truths)
        words = differing(found, truths)
        count, different = count + len(found), different + len(words)
        late = _missed(Latencies.of([max(0.0, sample.lateness) for sample in found]))
        print(*words[:_SHOWN], sep="\n", end="\n" if words else "", file=sys.stderr)
        print(f"{count:,} of {requests:,}: {different:,} differ; starts missed by: {late}", file=sys.stderr, flush=True)
    checks = [Check(name, said[name], true[name], count=True) for name in sorted(said.keys() | true.keys())]
    return [*checks, Check("requests", count, true.total(), count=True), Check("differ", different, 0, count=True)]


def _shown(checks: Sequence[Check]) -> int:
    for check in checks:
        unit = "" if check.count else " s"
        value = f"{check.said:,.0f}" if check.count else f"{check.said:.5g}"
        words = "exact" if check.said == check.true else f"{check.said - check.true:+.5f}{unit}"
        print(f"{'good' if check.good else 'BAD ':4}  {check.name:26} {value:>12}{unit:2}  {words}")
    return 0 if all(check.good for check in checks) else 1


def _missed(late: Latencies) -> str:
    return ", ".join(f"p{100 * share:g} {1000 * late.quantile(share):.2f} ms" for share in (0.5, 0.99, 1.0))


def _warm(rate: float, seconds: float, script: Script) -> tuple[list[Check], Latencies]:
    """Counts of outcomes, percentiles of latencies, and by how much intended starts were missed."""
    done, did = _driven("warm", [f"arrivals.rate={rate}", f"arrivals.seconds={seconds}", "warm_up=0"], script)
    found, truths = samples.outcomes(done.attempts), {_request(truth): truth for truth in did}
    said, true = Counter(str(one.outcome) for one in found), Counter(_OUTCOMES[truth.deed] for truth in did)
    checks = [Check(name, said[name], true[name], count=True) for name in sorted(true)]
    checks.append(Check("differ", len(differing(found, did)), 0, count=True))
    ok = [sample for sample in found if sample.outcome == "ok"]
    held = Latencies.of([truths[s.index].answered - truths[s.index].received for s in ok])
    # From the moment it was sent: the server cannot know when a request was meant to be.
    seen = Latencies.of([sample.finished - sample.sent for sample in ok])
    checks += [
        Check(f"latency p{100 * share:g}", seen.quantile(share), held.quantile(share))
        for share in (0.5, 0.9, 0.95, 0.99, 1.0)
    ]
    return checks, Latencies.of([max(0.0, sample.lateness) for sample in found])


def _cold(cycles: int) -> list[Check]:
    script = Script(service=0.1, idle=1.0, untold=_UNTOLD, phases=tuple(_PHASES.items()))
    done, did = _driven("cold-once", [f"cycles={cycles}", "idle=1.5"], script)
    truths = {int(truth.id.split("-")[1]): truth for truth in did}
    checks = []
    for start in done.starts:
        truth = truths[start.cycle]
        name = f"start {start.cycle + 1}"
        checks.append(Check(f"{name} whole", start.seconds, truth.answered - truth.received))
        checks.append(Check(f"{name} process", start.part("process"), sum(_PHASES[phase] for phase in PROCESS)))
        checks.append(Check(f"{name} unexplained", start.part("unexplained"), truth.woken - sum(_PHASES.values())))
    return checks


def _driven(name: str, settings: list[str], script: Script) -> tuple[Run, list[Truth]]:
    """A run, and what the server did."""
    with tempfile.TemporaryDirectory() as folder, _golden(script) as url:
        scenario = changed(SCENARIOS[name], settings)
        done = run(
            scenario, {"a": TargetSpec(url=url, dialect="openai", model="golden", greet="/healthz")}, Path(folder)
        )
        with urllib.request.urlopen(f"{url}/truth", timeout=60) as reply:  # noqa: S310
            return done, msgspec.json.decode(reply.read(), type=list[Truth])


def _request(truth: Truth) -> int:
    """Its place in the schedule; ids are RUN-CYCLE-REQUEST-ATTEMPT."""
    return int(truth.id.split("-")[2])


@contextmanager
def _golden(script: Script) -> Iterator[str]:
    text: Any = json.dumps(msgspec.to_builtins(script))
    command = [sys.executable, "-m", "loadtest.golden", text]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.terminate()
        server.communicate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
