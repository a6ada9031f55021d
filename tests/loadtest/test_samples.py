"""The books: what is written can be read, and every request has one outcome."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest import samples
from loadtest.samples import OUTCOMES, Sample

moments = st.floats(0, 1e5).map(lambda value: round(value, 6))
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@given(
    st.lists(
        st.builds(
            Sample,
            index=st.integers(0, 10**6), attempt=st.integers(0, 5), target=st.sampled_from("ab"),
            cycle=st.integers(0, 99),
            identity=st.integers(-5, 10**9), intended=moments, sent=moments, connected=moments,
            first_byte=st.none() | moments, finished=moments, outcome=st.sampled_from(OUTCOMES),
            status=st.integers(0, 599), code=texts, cold=st.none() | st.booleans(), gpu_seconds=st.none() | moments,
            server_timing=texts, error=texts,
        ),
        max_size=20,
    )
)  # fmt: skip
@settings(deadline=None)
def test_what_is_written_is_read(tmp_path_factory, found):
    path = tmp_path_factory.getbasetemp() / "round.csv"
    samples.write(path, found)
    assert samples.read(path) == found


def test_the_last_attempt_is_the_outcome_in_whatever_order_they_ended(sample):
    attempts = [sample(n, attempt=a, outcome="ok" if a == 2 else "lost") for n in range(4) for a in range(3)]
    random.Random(3).shuffle(attempts)
    last = samples.outcomes(attempts)
    assert [one.index for one in last] == [0, 1, 2, 3]
    assert samples.books(last) == dict.fromkeys(OUTCOMES, 0) | {"ok": 4}


def test_books_that_are_wrong_are_not_kept(sample):
    with pytest.raises(ValueError, match="cycle 0, request 7, attempt 0: recorded twice"):
        samples.outcomes([sample(7), sample(7, outcome="lost")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("index,attempt\n1,2\n", "no column bytes"),
        (None, "line 3: .*`float`"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_line(tmp_path, sample, text, words):
    path = tmp_path / "samples.csv"
    samples.write(path, [sample(0), sample(1)])
    if text is None:
        text = path.read_text().replace("1.0,1.0,1.0", "1.0,soon,1.0")
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"samples\.csv.*{words}"):
        samples.read(path)
