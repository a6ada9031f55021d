"""What may be drawn: the blocklist against spellings, the classifier slot, the policy of a key."""

import io
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from predictor.core.account import Caller, Limits
from predictor.core.jobs import Verdict
from predictor.core.problems import InternalError, ModerationBlocked
from predictor.edge.moderation import Moderation, read_blocklist, words
from predictor.edge.settings import EdgeSettings
from tests.edge.stores.given import a_request

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u2066\u034f\ufe0f\u0336\u20e0"


def caller(policy="default"):
    return Caller(key_id="key_1", tenant="acme", scopes=frozenset(("generate",)), limits=Limits(), policy=policy)


def listed(*phrases, classify=None, threshold=0.5):
    return Moderation([tuple(words(phrase)) for phrase in phrases], classify, threshold)


def settings(**given):
    return EdgeSettings(predictor_url="http://predictor", **given)


def blocked(moderation, prompt, policy="default", **more):
    try:
        moderation.prompt(caller(policy), a_request(prompt=prompt), **more)
    except ModerationBlocked:
        return True
    return False


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), color).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "prompt",
    [
        "evil thing",
        "a photo of an Evil  THING, oil on canvas",
        "evil\nthing",
        "evil-thing",
        "evil_thing",
        "((evil)) [thing]",
        "ｅｖｉｌ ｔｈｉｎｇ",
        "𝖊𝖛𝖎𝖑 𝓽𝓱𝓲𝓷𝓰",
        "e\u200bv\u00adil th\u2060ing",
        "e̶v̶i̶l̶ t̶h̶i̶n̶g̶",
        "ⓔⓥⓘⓛ ⓣⓗⓘⓝⓖ",
        "EVİL THİNG",
    ],
)
def test_a_phrase_is_found_in_any_spelling(prompt):
    assert blocked(listed("evil thing"), prompt)


@pytest.mark.parametrize("prompt", ["evil", "thing evil", "devil thing", "evil things", "evil red thing", ""])
def test_another_word_that_holds_it_is_not_it(prompt):
    assert not blocked(listed("evil thing"), prompt)


@pytest.mark.parametrize(
    ("phrase", "prompt"),
    [("straße", "STRASSE"), ("STRASSE", "eine straße"), ("café", "cafe\u0301"), ("裸体", "一个裸体女人"), ("İ", "i̇")],
)
def test_scripts_have_rules_of_their_own(phrase, prompt):
    assert blocked(listed(phrase), prompt)


@given(st.data())
def test_what_is_not_seen_does_not_part_a_phrase(data):
    spelt = "".join(
        letter + "".join(data.draw(st.lists(st.sampled_from(INVISIBLE), max_size=3))) for letter in "Evil Thing"
    )
    before, after = data.draw(st.tuples(st.text(), st.text()))
    assert blocked(listed("harmless", "evil thing"), f"{before} {spelt} {after}")


@given(st.text(), st.text())
def test_a_text_is_found_in_itself_and_an_empty_list_blocks_nothing(one, other):
    assert not blocked(listed(), one + other)
    phrase = tuple(words(one))
    if phrase:
        assert blocked(Moderation([phrase], None, 0.5), f"{other} {one} {other}")


def test_the_refusal_names_the_field_and_not_the_word():
    with pytest.raises(ModerationBlocked) as caught:
        listed("evil thing").prompt(caller(), a_request(prompt="an evil thing"))
    assert caught.value.message == (
        "prompt: it holds a blocked word or phrase; allowed: what the deployment's policy does not rule out"
    )
    assert (caught.value.field, caught.value.code) == ("prompt", "moderation_blocked")


def test_what_is_not_wanted_may_be_named():
    request = a_request(prompt="a red circle", negative_prompt="evil thing")
    assert listed("evil thing").prompt(caller(), request) == Verdict("default", None)


def test_the_policy_decides_what_is_checked():
    moderation = listed("evil", classify=lambda pictures: [0.0] * len(pictures), threshold=0.6)
    fine = a_request(prompt="a red circle")
    assert moderation.prompt(caller(), fine) == Verdict("default", 0.6)
    assert moderation.prompt(caller("low"), fine) == Verdict("low", 0.8)
    assert moderation.prompt(caller(), fine, low=True) == Verdict("low", 0.8)
    assert moderation.prompt(caller("off"), fine) == Verdict("off", None)
    assert blocked(moderation, "evil", low=True)
    assert blocked(moderation, "evil", policy="low")
    assert not blocked(moderation, "evil", policy="off")
    with pytest.raises(ValueError, match="policy: got 'lax'; allowed: default, low, off"):
        moderation.prompt(caller("lax"), fine)


def test_a_blocklist_is_read_line_by_line(tmp_path):
    file = tmp_path / "blocked"
    file.write_bytes("\ufeff# not wanted here\n\nEvil  Thing\r\n  gore # nor this\n".encode())
    assert read_blocklist(str(file)) == [("evil", "thing"), ("gore",)]
    moderation = Moderation.load(settings(blocklist=str(file)))
    assert blocked(moderation, "gore")
    assert not blocked(moderation, "not wanted here")
    assert not blocked(Moderation.load(settings()), "gore")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\n\n!!! # of what?\n", "blocked:3: got '!!!'; allowed: words with letters or digits"),
        (b"fine\nna\xefve\n", "blocked:2: invalid continuation byte; allowed: UTF-8"),
        (None, "blocked: No such file or directory; allowed: a file that can be read"),
    ],
)
def test_a_bad_blocklist_is_refused_by_file_and_line(tmp_path, content, message):
    file = tmp_path / "blocked"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"^--blocklist: ") as caught:
        Moderation.load(settings(blocklist=str(file)))
    assert str(caught.value).endswith(message)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "a_classifier.py").write_text(
        "import threading\n"
        "threads = set()\n"
        "shapes = []\n"
        "CONSTANT = 3\n"
        "def redness(pictures):\n"
        "    threads.add(threading.current_thread())\n"
        "    shapes.extend((p.shape, p.dtype.name) for p in pictures)\n"
        "    return [p[..., 0].mean() / 255 for p in pictures]\n"
        "def broken(pictures): raise SystemError('out of order')\n"
        "def short(pictures): return []\n"
        "def wild(pictures): return [float('nan')] * len(pictures)\n"
        "def words(pictures): return ['fine'] * len(pictures)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("a_classifier", None)


async def test_a_classifier_scores_every_picture_off_the_event_loop(plugin):
    moderation = Moderation.load(settings(classifier="a_classifier:redness", classifier_threshold=0.7))
    scores = await moderation.scores([png("red"), png("black"), png((51, 255, 255))])
    assert scores == pytest.approx((1.0, 0.0, 0.2))
    assert moderation.prompt(caller(), a_request()) == Verdict("default", 0.7)
    seen = sys.modules["a_classifier"]
    assert seen.shapes == [((4, 6, 3), np.dtype(np.uint8).name)] * 3
    assert threading.current_thread() not in seen.threads


async def test_without_a_classifier_there_are_no_scores():
    assert await listed().scores([png("red")]) == ()


@pytest.mark.parametrize("function", ["broken", "short", "wild", "words"])
async def test_pictures_that_could_not_be_judged_are_not_given(plugin, function):
    moderation = Moderation.load(settings(classifier=f"a_classifier:{function}"))
    with pytest.raises(InternalError, match=r"^the safety classifier failed$"):
        await moderation.scores([png("red")])


@pytest.mark.parametrize(
    "name", ["a_classifier", "a_classifier:absent", "absent:redness", ":", "a_classifier:CONSTANT"]
)
def test_a_classifier_that_is_not_there_is_refused_at_the_start(plugin, name):
    with pytest.raises(ValueError, match=r"^--classifier: got .*; allowed: "):
        Moderation.load(settings(classifier=name))
