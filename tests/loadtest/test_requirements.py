"""The words of `--require`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.requirements import Figure, Requirement

FIGURES = {"cold.p95": Figure(5.9), "lost": Figure(0), "refused.share": Figure(0.02), "all.p99": Figure(600.0, True)}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("cold.p95<6s", True),
        ("cold.p95 < 5900ms", False),
        ("cold.p95<=5900ms", True),
        ("cold.p95<0.1min", True),
        ("lost==0", True),
        ("refused.share<1%", False),
        ("refused.share<=2%", True),
        # Censored: the truth is 600 s or more.
        ("all.p99<700s", False),
        ("all.p99>=600s", True),
        ("all.p99==600s", False),
    ],
)
def test_a_requirement_is_met_or_not(text, met):
    assert Requirement.parse(text).met(FIGURES) is met


@pytest.mark.parametrize("text", ["", "cold.p95", "cold.p95<", "<6s", "cold.p95<6h", "cold.p95=6s", "a b<1", "x<-1"])
def test_what_is_no_requirement_is_refused_in_words(text):
    with pytest.raises(ValueError, match=r"requirement: got .*; allowed: NAME"):
        Requirement.parse(text)


def test_a_figure_that_is_not_there_is_no_pass():
    with pytest.raises(ValueError, match=r"no figure 'cold\.p59'; near it: cold\.p95"):
        Requirement.parse("cold.p59<6s").met(FIGURES)


@given(st.floats(0, 1e6).map(lambda value: round(value, 3)), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
@settings(deadline=None)
def test_a_limit_and_its_opposite_never_both_hold(limit, compare):
    opposite = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}[compare]
    one, other = (Requirement.parse(f"cold.p95{word}{limit:.3f}s").met(FIGURES) for word in (compare, opposite))
    assert one is not other
