import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor import __version__
from predictor.core.infotext import NEGATIVE, infotext, parse
from predictor.core.request import GenerationRequest, single

REQUEST = GenerationRequest(
    prompt="a cat, sitting: very still",
    negative_prompt="dogs, (blurry:1.2)",
    seed=7,
    steps=20,
    guidance_scale=7.5,
    height=512,
    width=768,
    sampler="euler_a",
    num_images=2,
    truncate_prompt=False,
)
# What the format can hold: lines without white space around them, none of which begins like the second part.
PROMPT = (
    st.lists(st.text().map(lambda text: text.replace("\n", "").strip()), max_size=4)
    .map(lambda lines: "\n".join(lines).strip())
    .filter(lambda text: not any(line.startswith(NEGATIVE) for line in text.split("\n")))
)


def test_it_is_what_the_web_ui_writes():
    assert infotext(REQUEST, 8, "sd", "3f2a9900112233") == (
        "a cat, sitting: very still\n"
        "Negative prompt: dogs, (blurry:1.2)\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 8, Size: 768x512, Model hash: 3f2a990011, Model: sd, "
        f"Version: sdzero {__version__}"
    )


def test_a_request_without_a_negative_prompt_has_no_line_for_it():
    text = infotext(msgspec.structs.replace(REQUEST, negative_prompt="", guidance_scale=5.0), 7, "sd", "3f2a")
    assert NEGATIVE not in text
    assert "CFG scale: 5," in text


@given(
    prompt=PROMPT.filter(bool),
    negative=PROMPT,
    seed=st.integers(0, 2**53),
    scale=st.floats(1, 30).map(single),
    model=st.text(min_size=1).filter(lambda name: name == name.strip() and not name.startswith('"')),
)
def test_what_the_format_can_hold_comes_back(prompt, negative, seed, scale, model):
    request = msgspec.structs.replace(REQUEST, prompt=prompt, negative_prompt=negative, guidance_scale=scale)
    found = parse(infotext(request, seed, model, "3f2a"))
    assert (found["Prompt"], found["Negative prompt"]) == (prompt, negative)
    assert (int(found["Seed"]), float(found["CFG scale"])) == (seed, scale)
    assert (found["Model"], found["Size"], found["Sampler"]) == (model, "768x512", "Euler a")


@pytest.mark.parametrize("prompt", [" padded ", "one\n  two", f"one\n{NEGATIVE} two"])
def test_what_it_cannot_hold_still_leaves_the_values_whole(prompt):
    found = parse(infotext(msgspec.structs.replace(REQUEST, prompt=prompt), 7, "sd", "3f2a"))
    assert found["Prompt"] != prompt
    assert (found["Steps"], found["Seed"]) == ("20", "7")


def test_a_text_without_values_is_a_prompt():
    assert parse("a cat, Steps: many") == {"Prompt": "a cat, Steps: many", "Negative prompt": ""}


@given(text=st.text())
def test_any_text_can_be_read(text):
    assert {"Prompt", "Negative prompt"} <= parse(text).keys()
