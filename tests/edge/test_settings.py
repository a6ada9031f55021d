"""The edge's settings: what is secret, and what KServe appends to the arguments of a transformer."""

import argparse

import pytest

from predictor.cli import serve_edge
from predictor.edge.settings import EdgeSettings, add_kserve_arguments, as_kserve_says
from predictor.settings import add_arguments, load

KEY = "sk-sdz-" + "k" * 43
# What `CustomTransformer.GetContainer` of KServe 0.20 makes of an InferenceService `demo` in the namespace `pictures`.
APPENDED = ["--model_name", "demo", "--predictor_host", "demo-predictor.pictures", "--http_port", "8080"]


def settings(*argv: str, **environ: str) -> EdgeSettings:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser, EdgeSettings)
    add_kserve_arguments(parser)
    return load(EdgeSettings, as_kserve_says(vars(parser.parse_args(argv)), environ), environ)


def places(found: EdgeSettings) -> tuple[str, str, int]:
    return found.model_name, found.predictor_url, found.http_port


def test_what_kserve_appends_is_all_that_an_edge_needs_to_know():
    assert places(settings(*APPENDED)) == ("demo", "http://demo-predictor.pictures", 8080)
    assert places(settings(*APPENDED, "--workers", "20")) == ("demo", "http://demo-predictor.pictures", 8080)
    assert places(settings("--model_name=shapes", *APPENDED[2:])) == ("shapes", "http://demo-predictor.pictures", 8080)


def test_what_our_own_flags_and_variables_say_counts_more():
    own = ("shapes", "http://elsewhere", 9000)
    flags = ("--model-name", "shapes", "--predictor-url", "http://elsewhere", "--http-port", "9000")
    environ = {
        "SDZERO_MODEL_NAME": "shapes",
        "SDZERO_PREDICTOR_URL": "http://elsewhere",
        "SDZERO_HTTP_PORT": "9000",
    }
    assert places(settings(*flags, *APPENDED)) == own
    assert places(settings(*APPENDED, **environ)) == own
    assert places(settings(*APPENDED, "--http-port", "9000")) == ("demo", "http://demo-predictor.pictures", 9000)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--predictor_host", "a b"], "--predictor-url: got 'http://a b'; allowed: text that matches"),
        ([*APPENDED[:4], "--http_port", "many"], "--http-port: got 'many'; allowed: whole numbers from 1 to 65535"),
        ([*APPENDED[2:], "--model_name", "a/b"], "--model-name: got 'a/b'; allowed: text that matches"),
    ],
)
def test_kserve_s_spellings_are_checked_as_ours(argv, said):
    with pytest.raises(ValueError, match="allowed") as refused:
        settings(*argv)
    assert said in str(refused.value)


def test_what_kserve_does_not_append_is_refused(capsys):
    with pytest.raises(SystemExit):
        settings(*APPENDED, "--predictor_protocol", "v1")
    assert "--predictor_protocol" in capsys.readouterr().err


def test_no_refusal_shows_a_secret():
    url = ("--predictor-url", "http://p")
    for wrong in (KEY[:-1], KEY + "k", KEY[:-1] + "+", KEY + "\n", "hunter2"):
        with pytest.raises(ValueError, match=rf"--first-key: got {len(wrong)} characters; allowed: ") as refused:
            settings(*url, f"--first-key={wrong}")
        assert wrong not in str(refused.value)
    with pytest.raises(ValueError, match="--secret: got 7 characters; allowed: at least 32"):
        settings(*url, "--secret", "hunter2")
    assert settings(*url, "--first-key", KEY).first_key == KEY
    assert settings(*url, SDZERO_FIRST_KEY="").first_key == ""


def test_the_help_shows_our_spellings_alone_and_no_value_of_a_variable(monkeypatch, capsys):
    monkeypatch.setenv("SDZERO_FIRST_KEY", KEY)
    with pytest.raises(SystemExit) as ended:
        serve_edge(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--first-key TEXT" in shown
    assert "SDZERO_FIRST_KEY" in shown
    for hidden in (KEY, "_host", "--model_name", "--http_port", "--workers"):
        assert hidden not in shown
