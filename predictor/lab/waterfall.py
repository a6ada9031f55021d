"""`sdzero timeline`: a running predictor's cold start, phase by phase."""

import argparse
import json
import sys
import urllib.error
import urllib.request

from predictor.core.timeline import Phase, chart


def main(argv: list[str]) -> int:
    """Fetch /timeline of a predictor and draw it."""
    parser = argparse.ArgumentParser(prog="sdzero timeline", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "url", nargs="?", default="http://127.0.0.1:8080", help="address of the predictor [%(default)s]"
    )
    parser.add_argument("--json", action="store_true", help="print marks and phases for a machine to read")
    given = parser.parse_args(argv)
    if not given.url.startswith(("http://", "https://")):
        parser.error(f"url: got {given.url!r}; allowed: http:// or https://")
    try:
        with urllib.request.urlopen(given.url.rstrip("/") + "/timeline", timeout=10) as answer:  # noqa: S310
            timeline = json.load(answer)
    except (urllib.error.URLError, ValueError) as error:
        print(f"sdzero timeline: {given.url}: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(timeline, indent=2))
    else:
        print(chart([Phase(**phase) for phase in timeline["phases"]]), end="")
    return 0
