"""`sdzero loadtest SCENARIO --host URL`: run a scenario, write a report, and say by exit status whether it passed.

Locust patches the whole process for gevent when it is imported, so it runs in a process of its own; this one does not
import it.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loadtest.deployments import Deployment, NotAtZero
from loadtest.dialects import DIALECTS, GRPC
from loadtest.job import KEY, TargetSpec
from loadtest.requirements import Requirement
from loadtest.scenarios import SCENARIOS, changed
from predictor.lab.typed import typed

PASSED, UNMET, UNUSABLE, BROKEN = 0, 1, 2, 3


def main(argv: Sequence[str]) -> int:
    """Returns 0; 1 if a requirement is not met, 2 for what cannot be run, 3 if the run broke."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        requirements = [Requirement.parse(text) for text in arguments.require]
        scenario = changed(SCENARIOS[arguments.scenario], arguments.set)
        targets = _targets(arguments)
    except ValueError as error:
        parser.error(str(error))
    return _run(arguments, typed("sdzero loadtest", argv), scenario, targets, requirements)


def _run(
    arguments: argparse.Namespace,
    command: str,
    scenario: Any,
    targets: Mapping[str, TargetSpec],
    requirements: Sequence[Requirement],
) -> int:
    # Imported here: `--help` needs neither plots nor prices.
    from loadtest import results, samples
    from loadtest.generating import GeneratorFailed
    from loadtest.report import write_report
    from loadtest.run import run
    from predictor.lab.bench.machine import commit
    from predictor.lab.sim.cost import read_prices

    out: Path = arguments.out
    if out.exists() and any(out.iterdir()):
        return _fail(f"--out: {out}: allowed: a folder that is empty or not there", UNUSABLE)
    try:
        prices = read_prices(arguments.prices)
        if arguments.price not in prices:
            raise ValueError(f"--price: got {arguments.price!r}; allowed: {', '.join(prices)}")
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            done = run(
                scenario,
                targets,
                out,
                seed=arguments.seed,
                deployments=_deployments(arguments, targets, stack),
                key=os.environ.get(KEY) or None,
                **({"prompts": tuple(arguments.prompt)} if arguments.prompt else {}),
                metrics_port=arguments.metrics_port,
                say=lambda words: print(words, file=sys.stderr, flush=True),
            )
    except (NotAtZero, GeneratorFailed) as error:
        return _fail(str(error), BROKEN)
    except (ValueError, OSError) as error:
        return _fail(str(error), UNUSABLE)
    found = results.result(
        done,
        name=arguments.scenario,
        targets=targets,
        requirements=requirements,
        price=prices[arguments.price],
        command=command,
        commit=commit() or "unknown",
    )
    samples.write(out / "samples.csv", done.attempts)
    results.write(out / "summary.json", found)
    write_report(out / "report.html", found, done)
    print(_said(found))
    print(f"\n{out / 'report.html'}")
    if done.broken:
        return BROKEN
    return PASSED if found.met else UNMET


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, SCENARIOS))
    parser = argparse.ArgumentParser(
        prog="sdzero loadtest",
        description="Measure a deployment: open loop, exact percentiles, cold starts in parts.",
        epilog="scenarios:\n"
        + "\n".join(f"  {name:{width}}  {scenario.about}" for name, scenario in SCENARIOS.items())
        + f"\n\nAn API key is taken from {KEY}. Exit status: 0 passed, 1 a requirement is not met, 2 cannot be run, "
        "3 the run broke.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("scenario", choices=SCENARIOS, metavar="SCENARIO", help="one of those below")
    parser.add_argument("--host", required=True, metavar="URL", help="edge or predictor; of v2-grpc HOST:PORT")
    parser.add_argument("--against", metavar="URL", help="a second one, asked in turn: a comparison with a verdict")
    parser.add_argument("--dialect", choices=[*DIALECTS, GRPC], default="openai", help="what is spoken [%(default)s]")
    parser.add_argument("--model", default="shapes", help="the model's name [%(default)s]")
    for flag, whose in (("--header", "every request"), ("--against-header", "those to --against, instead")):
        parser.add_argument(flag, action="append", default=[], metavar="NAME: VALUE", help=f"of {whose}, such as Host")
    parser.add_argument("--insecure", action="store_true", help="take any TLS certificate")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="cycles=5, arrivals.rate=2")
    parser.add_argument("--prompt", action="append", help="what to draw, instead of what the demo model knows")
    parser.add_argument(
        "--require", action="append", default=[], metavar="cold.p95<6s", help="or fail; see summary.json"
    )
    parser.add_argument("--seed", type=int, help="of schedule and pictures [drawn: a cache must not know them]")
    parser.add_argument("--out", type=Path, default=Path("out/loadtest"), metavar="FOLDER", help="[%(default)s]")
    parser.add_argument("--kubeconfig", metavar="FILE", help="watch the cluster: zero is seen, starts are explained")
    parser.add_argument("--context", help="of the kubeconfig")
    parser.add_argument("--namespace", help="[the kubeconfig's]")
    parser.add_argument("--service", metavar="KSVC", help="Knative service of the predictor, with --kubeconfig")
    parser.add_argument("--against-service", metavar="KSVC", help="the other one's")
    parser.add_argument("--price", default="h100-rented", help="of a GPU, by name [%(default)s]")
    parser.add_argument("--prices", type=Path, metavar="FILE.json", help="a table of prices instead of ours")
    parser.add_argument("--metrics-port", type=int, default=0, metavar="PORT", help="of Prometheus' figures [none]")
    return parser


def _targets(arguments: argparse.Namespace) -> dict[str, TargetSpec]:
    hosts = {"a": (arguments.host, arguments.header)}
    if arguments.against:
        hosts["b"] = (arguments.against, arguments.against_header or arguments.header)
    return {
        name: TargetSpec(
            url=host if arguments.dialect == GRPC else _url(host),
            dialect=arguments.dialect,
            model=arguments.model,
            headers=_headers(lines),
            verify=not arguments.insecure,
            # Alive, which an edge answers itself; a predictor that sleeps must not be asked.
            greet="/healthz" if arguments.dialect.startswith("openai") else "",
        )
        for name, (host, lines) in hosts.items()
    }


def _url(host: str) -> str:
    if not host.startswith(("http://", "https://")):
        raise ValueError(f"--host: got {host!r}; allowed: http://HOST[:PORT] or https://HOST[:PORT]")
    return host.rstrip("/")


def _headers(lines: Sequence[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"--header: got {line!r}; allowed: NAME: VALUE")
        found[name.strip()] = value.strip()
    return found


def _deployments(
    arguments: argparse.Namespace, targets: Mapping[str, TargetSpec], stack: ExitStack
) -> dict[str, Deployment]:
    services = {"a": arguments.service, "b": arguments.against_service}
    if arguments.kubeconfig is None and not any(services.values()):
        return {}
    missing = [name for name in targets if not services[name]]
    if missing:
        raise ValueError("--service, and with --against also --against-service: missing; which Knative service is it?")
    from loadtest.cluster import Watched
    from predictor.cluster.access import NoAccess, found

    try:
        access = found(arguments.kubeconfig, arguments.context)
    except NoAccess as error:
        raise ValueError(str(error)) from None
    namespace = arguments.namespace or access.namespace
    return {name: stack.enter_context(Watched(access, namespace, services[name])) for name in targets}


def _said(found: Any) -> str:
    """What a person reads at the end."""
    lines = []
    for target, summary in found.targets.items():
        counts = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.items() if count)
        lines.append(f"{target}: {summary.requests} requests: {counts}; {summary.images_per_second:.2f} pictures/s")
        for group, spread in summary.latency.items():
            shown = "  ".join(
                f"{name} {'>= ' if one.at_least else ''}{one.value:.3f} s [{one.low:.3f}, {one.high:.3f}]"
                for name, one in spread.quantiles.items()
                if name in ("p50", "p95")
            )
            lines.append(f"   {group:7} {spread.count:6}  {shown}")
    lines += [
        f"{one.name}: {one.verdict}, {one.ratio:.2f}x [{one.low:.2f}, {one.high:.2f}]" for one in found.comparisons
    ]
    lines += [f"warning: {words}" for words in found.warnings]
    lines += [f"missing: {words}" for words in found.missing]
    for gate in found.requirements:
        got = gate.problem or f"{'at least ' if gate.at_least else ''}{gate.got:g}"
        lines.append(f"{'met    ' if gate.met else 'NOT MET'}  {gate.text}  ({got})")
    return "\n".join(lines)


def _fail(words: str, status: int) -> int:
    print(f"sdzero loadtest: {words}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
