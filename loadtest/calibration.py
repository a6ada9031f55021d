"""How far the ruler is off on this machine, now: `python -m loadtest.calibration`.

Drives the golden server, compares what the suite says with what the server did, and exits with 1 if a count differs, or
a time by more than 1 % or 5 ms, whichever is larger. Machines that are busy with something else fail it, and should.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
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
from loadtest.scenarios import SCENARIOS, changed

_OUTCOMES: Final = {"ok": "ok", "lose": "lost", "refuse": "refused", "fail": "failed", "twice": "duplicated"}
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
    given = parser.parse_args(argv)
    fast, late = _warm(given.rate, given.seconds, Script(service=0.05, lose=101, refuse=97, fail=89, twice=83))
    # Rarely enough that the answers which a stall holds back do not come in by the thousand.
    stalled, _ = _warm(_SLOW, 30.0, Script(service=0.05, stalls=((10.0, 2.0),)))
    checks = [
        *(check.named(f"{given.rate:g}/s: ") for check in fast),
        *(check.named("stalled: ") for check in stalled),
        *_cold(given.cycles),
    ]
    for check in checks:
        unit = "" if check.count else " s"
        words = "exact" if check.said == check.true else f"{check.said - check.true:+.5f}{unit}"
        print(f"{'good' if check.good else 'BAD ':4}  {check.name:26} {check.said:12.5g}{unit:2}  {words}")
    missed = ", ".join(f"p{100 * share:g} {1000 * late.quantile(share):.2f} ms" for share in (0.5, 0.99, 1.0))
    print(f"at {given.rate:g}/s intended starts were missed by: {missed}")
    return 0 if all(check.good for check in checks) else 1


def _warm(rate: float, seconds: float, script: Script) -> tuple[list[Check], Latencies]:
    """Counts of outcomes, percentiles of latencies, and by how much intended starts were missed."""
    done, truths = _driven("warm", [f"arrivals.rate={rate}", f"arrivals.seconds={seconds}", "warm_up=0"], script)
    found = samples.outcomes(done.attempts)
    said, true = Counter(str(one.outcome) for one in found), Counter(_OUTCOMES[truth.deed] for truth in truths.values())
    checks = [Check(name, said[name], true[name], count=True) for name in sorted(true)]
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
    done, truths = _driven("cold-once", [f"cycles={cycles}", "idle=1.5"], script)
    checks = []
    for start in done.starts:
        truth = truths[start.cycle]
        name = f"start {start.cycle + 1}"
        checks.append(Check(f"{name} whole", start.seconds, truth.answered - truth.received))
        checks.append(Check(f"{name} process", start.part("process"), sum(_PHASES[phase] for phase in PROCESS)))
        checks.append(Check(f"{name} unexplained", start.part("unexplained"), truth.woken - sum(_PHASES.values())))
    return checks


def _driven(name: str, settings: list[str], script: Script) -> tuple[Run, dict[int, Truth]]:
    """A run, and what the server did by request (from zero: by cycle)."""
    with tempfile.TemporaryDirectory() as folder, _golden(script) as url:
        scenario = changed(SCENARIOS[name], settings)
        done = run(
            scenario, {"a": TargetSpec(url=url, dialect="openai", model="golden", greet="/healthz")}, Path(folder)
        )
        with urllib.request.urlopen(f"{url}/truth", timeout=60) as reply:  # noqa: S310
            truths = msgspec.json.decode(reply.read(), type=list[Truth])
    place = 1 if scenario.from_zero else 2
    return done, {int(truth.id.split("-")[place]): truth for truth in truths}


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
