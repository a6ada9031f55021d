"""What a result file says of the command that made it."""

import pytest

from predictor.lab.typed import typed


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--set", "--set"),
        ("window=6", "window=6"),
        ("runs/of/monday", "monday"),
        ("arrivals.path=/data/lora_request_trace.csv.gz", "arrivals.path=lora_request_trace.csv.gz"),
        ("--out=/results/a.json", "--out=a.json"),
        ("http://10.0.0.1:8080", "…"),
        ("authorization: Bearer sk-1", "…"),
    ],
)
def test_files_by_name_alone_and_addresses_not_at_all(word: str, shown: str) -> None:
    assert typed("sdzero loadtest", ["replay", word]) == f"sdzero loadtest replay {shown}"
