import pytest

from predictor.core.problems import InvalidField
from predictor.edge.patience import Patience, is_retry, patience, will_retry

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Patience()),
        ({"x-stainless-read-timeout": "600"}, Patience(hangs_up=NOW + 600)),
        ({"x-stainless-read-timeout": "600.5"}, Patience(hangs_up=NOW + 600.5)),
        ({"x-stainless-read-timeout": "NOT_GIVEN"}, Patience()),
        ({"x-request-deadline": "1800000030"}, Patience(deadline=NOW + 30)),
        ({"x-request-deadline": "2027-01-15T08:00:30Z"}, Patience(deadline=NOW + 30)),
        ({"x-request-deadline": "2027-01-15T09:00:30+01:00"}, Patience(deadline=NOW + 30)),
        (
            {"x-request-deadline": "1800000030", "x-stainless-read-timeout": "20"},
            Patience(deadline=NOW + 30, hangs_up=NOW + 20),
        ),
        ({"prefer": "respond-async"}, Patience(job_after=0.0)),
        ({"prefer": "wait=10"}, Patience(job_after=10.0)),
        ({"prefer": "respond-async, wait=10"}, Patience(job_after=10.0)),
        ({"prefer": 'handling=lenient; foo="bar", wait = "5"'}, Patience(job_after=5.0)),
        ({"prefer": "return=minimal, ,;"}, Patience()),
    ],
)
def test_headers_say_how_long_a_client_waits(headers, expected):
    assert patience(headers, NOW) == expected


def test_whichever_comes_first_counts_for_admission():
    assert Patience().earliest is None
    assert Patience(deadline=30.0).earliest == 30
    assert Patience(deadline=30.0, hangs_up=20.0).earliest == 20


def test_a_stream_is_not_bound_by_the_sdks_read_timeout():
    assert patience({"x-stainless-read-timeout": "5"}, NOW, stream=True) == Patience()
    deadline = {"x-request-deadline": str(NOW + 5)}
    assert patience(deadline, NOW, stream=True) == Patience(deadline=NOW + 5)


@pytest.mark.parametrize(
    "given", ["soon", "1799999999", "2027-01-15T08:00:30", "nan", "inf", "-1", "2027-13-01T00:00:00Z", "1e999"]
)
def test_a_deadline_that_cannot_be_kept_is_refused_with_what_is_allowed(given):
    with pytest.raises(InvalidField, match=r"X-Request-Deadline: got .*; allowed: a moment in the future"):
        patience({"x-request-deadline": given}, NOW)


def test_sdks_say_whether_they_ask_again():
    assert not will_retry({})
    assert will_retry({"x-stainless-retry-count": "0"})
    assert not is_retry({"x-stainless-retry-count": "0"})
    assert is_retry({"x-stainless-retry-count": "2"})
    assert not is_retry({"x-stainless-retry-count": "many"})
