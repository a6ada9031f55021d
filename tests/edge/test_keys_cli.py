"""`sdzero keys`, as an operator uses it."""

import asyncio
import json
import re
import subprocess
import sys
import time

import pytest
import structlog

from predictor.edge import keys_cli
from predictor.edge.stores.database import Database
from predictor.edge.stores.keys import Keys
from tests.processes import free_port

SECRET = r"sk-sdz-[A-Za-z0-9_-]{43}"


@pytest.fixture(autouse=True)
def as_a_process_begins(monkeypatch):
    for name in ("SDZERO_DATA", "SDZERO_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    logging = structlog.get_config()
    yield
    structlog.configure(**logging)


def keys(url: str, *argv: str) -> int:
    return keys_cli.main([argv[0], "--database-url", url, *argv[1:]])


def refused(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        keys_cli.main(list(argv))
    assert ended.value.code == 2
    return capsys.readouterr().err


def found(url: str, secret: str) -> object:
    async def find() -> object:
        database = await Database.open(url)
        try:
            return await Keys(database).find(secret)
        finally:
            await database.close()

    return asyncio.run(find())


def test_a_key_lives_from_create_to_revoke(database_url, capsys):
    assert keys(database_url, "create", "--name", "laptop") == 0
    made = capsys.readouterr()
    secret = made.out.strip()
    assert re.fullmatch(SECRET, secret)
    assert secret not in made.err
    id = made.err.split(":")[0]
    assert found(database_url, secret).id == id

    assert keys(database_url, "list") == 0
    listed = capsys.readouterr()
    assert re.search(
        rf"^{id} +laptop +default +generate,read +\d{{4}}-\d\d-\d\d +never +valid$", listed.out, re.MULTILINE
    )
    assert secret not in listed.out + listed.err

    assert keys(database_url, "revoke", id) == 0
    assert re.fullmatch(rf"{id}: revoked \d{{4}}-\d\d-\d\d\n", capsys.readouterr().out)
    assert found(database_url, secret) is None
    assert keys(database_url, "list") == 0
    assert capsys.readouterr().out.rstrip().endswith("revoked")


def test_a_machine_reads_json(database_url, capsys):
    options = ("--tenant", "studio", "--scopes", "admin,read", "--expires-days", "2", "--policy", "low")
    limits = ("--wakes-per-hour", "3", "--megapixel-steps-per-minute", "0")
    assert keys(database_url, "create", "--json", "--name", "ops", *options, *limits) == 0
    made = json.loads(capsys.readouterr().out)
    assert re.fullmatch(SECRET, made["secret"])
    assert (made["tenant"], made["name"], made["scopes"], made["policy"]) == ("studio", "ops", ["admin", "read"], "low")
    assert made["limits"] == {
        "megapixel_steps_per_minute": 0,
        "concurrent_jobs": None,
        "gpu_seconds_per_month": None,
        "wakes_per_hour": 3,
    }
    assert made["expires"] - made["created"] == pytest.approx(2 * 86400)
    assert abs(made["created"] - time.time()) < 3600

    assert keys(database_url, "list", "--json", "--tenant", "studio") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed == {name: value for name, value in made.items() if name != "secret"}
    assert keys(database_url, "list", "--json", "--tenant", "nobody") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert keys(database_url, "revoke", "--json", made["id"]) == 0
    assert json.loads(capsys.readouterr().out)["revoked"] >= made["created"]


def test_the_database_is_the_edge_s_by_default(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert keys_cli.main(["create", "--name", "a"]) == 0
    assert (tmp_path / "data" / "sdzero.db").is_file()
    monkeypatch.setenv("SDZERO_DATA", str(tmp_path / "other"))
    assert keys_cli.main(["create", "--name", "b"]) == 0
    assert keys_cli.main(["create", "--name", "c", "--data", "third"]) == 0
    secret = keys_cli.create(tmp_path / "third", tenant="demo", name="d")
    capsys.readouterr()
    for folder, names in (("data", ["a"]), ("other", ["b"]), ("third", ["c", "d"])):
        assert keys_cli.main(["list", "--json", "--data", str(tmp_path / folder)]) == 0
        assert [key["name"] for key in json.loads(capsys.readouterr().out)] == names
    assert found(f"sqlite:///{tmp_path / 'third' / 'sdzero.db'}", secret).tenant == "demo"


def test_an_unknown_key_is_told_by_the_exit_status(tmp_path, capsys):
    assert keys_cli.main(["revoke", "key_none", "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "sdzero keys: 'key_none': no such key; `sdzero keys list` shows those that are\n"


def test_a_database_that_does_not_answer_is_told_without_its_password(capsys):
    url = f"postgresql://edge:hunter2@127.0.0.1:{free_port()}/name"
    assert keys(url, "list") == 1
    told = capsys.readouterr()
    assert "sdzero keys: the database does not answer: " in told.err
    assert told.out == ""
    assert "hunter2" not in told.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["create"], "--name"),
        (["create", "--name", " "], "name: got ' '; allowed: 1 to 200 characters"),
        (["create", "--name", "a", "--scopes", "read,root"], "got 'read,root'; allowed: one or more of generate, read"),
        (["create", "--name", "a", "--expires-days", "0"], "expires: got "),
        (["create", "--name", "a", "--wakes-per-hour", "-1"], "wakes_per_hour: got -1; allowed: whole numbers from 0"),
        (["create", "--name", "a", "--policy", "none"], "default"),
        (["list", "--database-url", "mysql://root:hunter2@host/x"], "allowed: sqlite:///PATH"),
        (["forget"], "revoke"),
        ([], "{create,list,revoke}"),
    ],
)
def test_wrong_usage_is_explained(tmp_path, monkeypatch, capsys, argv, said):
    monkeypatch.chdir(tmp_path)
    told = refused(capsys, *argv)
    assert said in told
    assert "hunter2" not in told


def test_a_misspelt_variable_makes_no_key_in_another_database(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDZERO_DATABSE_URL", "postgresql://host/name")
    assert "did you mean SDZERO_DATABASE_URL?" in refused(capsys, "create", "--name", "a")
    assert list(tmp_path.iterdir()) == []


def test_the_help_shows_every_action_and_each_action_its_database(capsys):
    with pytest.raises(SystemExit) as ended:
        keys_cli.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^  sdzero keys (\w+)", shown, re.MULTILINE) == ["create", "create", "create", "list", "revoke"]
    for action in ("create", "list", "revoke"):
        with pytest.raises(SystemExit):
            keys_cli.main([action, "--help"])
        shown = capsys.readouterr().out
        assert "SDZERO_DATABASE_URL]" in shown.replace("\n", "")
        assert "SDZERO_DATA]" in shown


def test_only_the_secret_goes_to_a_shell_variable(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "predictor.cli", "keys", "create", "--name", "ci", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(SECRET + "\n", run.stdout)
    assert run.stderr.endswith(": keep the secret, it is not shown again\n")
