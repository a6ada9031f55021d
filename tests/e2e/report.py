"""What was proven: a table for the terminal, JSON for the record."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from predictor.lab.bench.machine import commit


@dataclass
class Proof:
    """One test: the sentence that it proves, how it ended, and what was measured on the way."""

    claim: str
    outcome: str = "not run"  # passed, failed, skipped: why
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """All proofs of one run, in the order in which they ran."""

    proofs: dict[str, Proof] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def table(self) -> list[str]:
        """Lines for a terminal."""
        marks = {"passed": "✓", "failed": "✗"}
        lines = []
        for proof in self.proofs.values():
            lines.append(f"{marks.get(proof.outcome, '–')} {proof.claim} ({proof.seconds:.0f} s)")
            if proof.outcome not in marks:
                lines.append(f"    {proof.outcome}")
            lines += [f"    {name}: {value}" for name, value in proof.facts.items()]
        return lines

    def write(self, folder: Path) -> None:
        """A file for each file of tests, so that one that runs alone leaves the others' as they are."""
        files: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for name, proof in self.proofs.items():
            files[name.partition(".py")[0].removeprefix("test_")].append(asdict(proof))
        for name, proofs in files.items():
            write(folder / "proofs" / f"{name}.json", {"proofs": proofs}, self)


def write(path: Path, content: dict[str, Any], report: Report) -> None:
    """One measurement: versions, commit and date before the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"commit": commit(), "date": datetime.now(UTC).isoformat(timespec="seconds"), "cluster": report.versions}
    path.write_text(json.dumps(head | content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
