"""What the calibration calls good, and that no request escapes it."""

import pytest

from loadtest import calibration
from loadtest.calibration import Check, differing, main
from loadtest.golden import Truth


def truth(index, deed, attempt=0):
    moments = {"received": 0.0, "answered": 1.0, "cold": False, "woken": 0.0}
    return Truth(id=f"run-0-{index}-{attempt}", deed=deed, **moments)


@pytest.mark.parametrize(
    ("said", "true", "count", "good"),
    [
        (0.0549, 0.05, False, True),  # 5 ms
        (0.0551, 0.05, False, False),
        (2.019, 2.0, False, True),  # 1 %
        (2.021, 2.0, False, False),
        (-0.004, 0.0, False, True),
        (1000, 1000, True, True),
        (999, 1000, True, False),  # of counts nothing may be missing
    ],
)
def test_an_error_of_one_per_cent_or_five_milliseconds_is_good(said, true, count, good):
    assert Check("latency p95", said, true, count).good is good
    assert Check("latency p95", said, true, count).named("fast: ").name == "fast: latency p95"


def test_two_errors_that_cancel_out_in_the_counts_are_both_found(sample):
    found = [sample(0, outcome="lost", error="reset"), sample(1), sample(2, outcome="lost")]
    assert differing(found, [truth(2, "cut"), truth(1, "lose"), truth(0, "ok")]) == [
        "request 0: the server did ok; the suite says lost reset",
        "request 1: the server did lose; the suite says ok",
    ]


def test_a_request_reaches_the_server_once_and_no_other_does(sample):
    found = [sample(0), sample(1, outcome="lost")]
    assert differing(found, [truth(0, "ok"), truth(0, "ok", attempt=1), truth(7, "ok")]) == [
        "request 0: the server did ok, ok; the suite says ok",
        "request 1: the server did nothing; the suite says lost",
        "request 7: the server did ok; the suite says nothing",
    ]


def test_every_outcome_of_several_batches_is_the_one_that_the_server_gave(capsys, monkeypatch):
    monkeypatch.setattr(calibration, "_BATCH", 300)
    status = main(["--requests", "500", "--rate", "150"])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    *outcomes, requests, differ = [line.split() for line in printed.out.splitlines()]
    assert {name for _, name, *_ in outcomes} == {"duplicated", "failed", "lost", "ok", "refused", "wrong"}
    assert requests[1] == "requests"
    assert int(requests[2]) == sum(int(line[2]) for line in outcomes) >= 500
    assert differ == ["good", "differ", "0", "exact"]
    assert len(printed.err.splitlines()) >= 2
    assert "of 500: 0 differ" in printed.err


def test_an_outcome_that_is_not_the_servers_fails_the_calibration(capsys, monkeypatch):
    monkeypatch.setitem(calibration._OUTCOMES, "fail", "lost")
    assert main(["--requests", "200", "--rate", "100"]) == 1
    printed = capsys.readouterr()
    assert "the server did fail; the suite says failed engine_lost by rule" in printed.err
    assert "BAD   differ" in printed.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--requests", "0"], "--requests: got 0; allowed: 1 or more"),
        (["--requests", "5", "--seconds", "3"], "--seconds: not allowed with --requests"),
    ],
)
def test_what_cannot_be_proven_is_said_before_anything_runs(capsys, arguments, words):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert words in capsys.readouterr().err
