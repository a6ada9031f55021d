"""`sdzero keys`: make, list and revoke API keys, beside a running edge or without one."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
import structlog

from predictor.core.account import SCOPES, KeyLimits, Scope
from predictor.core.problems import InvalidField, NotFound, Problem
from predictor.edge.settings import EdgeSettings
from predictor.edge.stores.database import Database, address
from predictor.edge.stores.keys import Key, Keys, Policy
from predictor.settings import EngineSettings, ServerSettings, add_arguments, doc, load, refuse_unknown

DONE, FAILED, USAGE = 0, 1, 2
DAY = 86400.0  # seconds
EPILOG = """\
examples:
  sdzero keys create --name laptop                       make a key; its secret is printed, this once
  KEY=$(sdzero keys create --name ci --tenant builds)    only the secret goes to stdout
  sdzero keys create --name ops --scopes read,admin      see everybody's jobs, usage and the audit log
  sdzero keys create --name trial --expires-days 14 --megapixel-steps-per-minute 100 --wakes-per-hour 2
  sdzero keys list --json                                all keys; never their secrets, which nobody has
  sdzero keys revoke key_0123…                           running edges forget it within ten seconds

A client sends the secret as `Authorization: Bearer sk-sdz-…`, as OpenAI's SDKs do with `api_key`.
Point --data or --database-url at the database of the edge. Exit status: 0 done, 1 not done, 2 wrong usage."""


class KeysSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the edge keeps its keys."""

    data: Annotated[str, doc("the edge's data folder, with its database")] = "data"
    database_url: Annotated[str, doc("the edge's database, where it is not in its data folder", secret=True)] = ""


def main(argv: list[str]) -> int:
    """Run one of create, list and revoke; returns the exit status."""
    parser = _parser()
    given = parser.parse_args(argv)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is the secret's
    try:
        # Whoever misspells the database's variable would make a key in another one.
        refuse_unknown([EdgeSettings, EngineSettings, ServerSettings], os.environ)
        settings = load(KeysSettings, vars(given), os.environ)
        return asyncio.run(_run(given, address(settings.database_url, settings.data)))
    except (InvalidField, ValueError) as error:
        parser.error(str(error))
    except NotFound as problem:
        print(f"sdzero keys: {problem}", file=sys.stderr)
    except (Problem, OSError) as error:
        print(f"sdzero keys: {error}{f': {error.__cause__}' if error.__cause__ else ''}", file=sys.stderr)
    return FAILED


def create(data: Path, *, tenant: str, name: str) -> str:
    """A new key in the database of a data folder; returns its secret."""

    async def created() -> str:
        database = await Database.open(address("", str(data)))
        try:
            return (await Keys(database).create(tenant=tenant, name=name))[1]
        finally:
            await database.close()

    return asyncio.run(created())


async def _run(given: argparse.Namespace, url: str) -> int:
    database = await Database.open(url)
    try:
        keys = Keys(database)
        if given.action == "create":
            key, secret = await _create(keys, given)
            print(_json(_facts(key) | {"secret": secret}) if given.json else secret)
            print(f"{key.id}: keep the secret, it is not shown again", file=sys.stderr)
        elif given.action == "list":
            found = await keys.list(given.tenant)
            print(_json([_facts(key) for key in found]) if given.json else "\n".join(_lines(found, time.time())))
        else:
            key = await keys.revoke(given.id)
            print(_json(_facts(key)) if given.json else f"{key.id}: revoked {_day(key.revoked)}")
    finally:
        await database.close()
    return DONE


async def _create(keys: Keys, given: argparse.Namespace) -> tuple[Key, str]:
    now = time.time()
    return await keys.create(
        tenant=given.tenant,
        name=given.name,
        scopes=given.scopes,
        limits=KeyLimits(**{limit: getattr(given, limit) for limit in KeyLimits.__struct_fields__}),
        policy=given.policy,
        expires=None if given.expires_days is None else now + given.expires_days * DAY,
        now=now,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdzero keys",
        description="Make, list and revoke API keys. Only a hash of each is kept; every change is in the audit log.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="{create,list,revoke}")
    create = _action(actions, "create", "make a key and print its secret, this once")
    create.add_argument("--name", required=True, help="what it is for, as `list` and the audit log show it")
    create.add_argument("--tenant", default="default", help="whose jobs and images it sees [default: %(default)s]")
    create.add_argument(
        "--scopes",
        type=_scopes,
        default=("generate", "read"),
        metavar="SCOPE,…",
        help=f"what it may do, of {', '.join(SCOPES)}: ask for pictures; see its tenant's; everybody's "
        "[default: generate,read]",
    )
    create.add_argument("--expires-days", type=float, metavar="X", help="days until it expires [default: never]")
    create.add_argument(
        "--policy",
        choices=get_args(Policy),
        default="default",
        help="moderation: the deployment's, a laxer one for pictures, or none [default: %(default)s]",
    )
    defaults = {field.name: field.type for field in msgspec.structs.fields(EdgeSettings)}
    for limit in KeyLimits.__struct_fields__:
        (meta,) = defaults[limit].__metadata__
        explained = meta.description.removeprefix("default quota of a key")
        create.add_argument(
            f"--{limit.replace('_', '-')}", type=int, metavar="N", help=f"quota{explained} [default: the edge's]"
        )
    shown = _action(actions, "list", "show the keys")
    shown.add_argument("--tenant", help="only this tenant's [default: all]")
    _action(actions, "revoke", "make a key useless").add_argument("id", help="the key's id, as `list` shows it")
    return parser


def _action(actions: Any, name: str, explained: str) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=explained, description=f"{explained[0].upper()}{explained[1:]}.", allow_abbrev=False
    )
    action.add_argument("--json", action="store_true", help="print it for a machine to read")
    add_arguments(action, KeysSettings)
    return action


def _scopes(text: str) -> tuple[Scope, ...]:
    named = [name.strip() for name in text.split(",")]
    found = tuple(scope for scope in SCOPES if scope in named)
    if set(named) - set(SCOPES) or not found:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: one or more of {', '.join(SCOPES)}, with commas")
    return found


def _facts(key: Key) -> dict[str, Any]:
    return msgspec.structs.asdict(key) | {"scopes": sorted(key.scopes)}


def _json(facts: object) -> str:
    return msgspec.json.format(msgspec.json.encode(facts), indent=2).decode()


def _lines(keys: list[Key], now: float) -> Iterator[str]:
    rows = [("ID", "NAME", "TENANT", "SCOPES", "CREATED", "EXPIRES", "STATE")]
    for key in keys:
        state = "revoked" if key.revoked is not None else "valid" if key.valid(now) else "expired"
        scopes = ",".join(scope for scope in SCOPES if scope in key.scopes)
        rows.append((key.id, key.name, key.tenant, scopes, _day(key.created), _day(key.expires), state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _day(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
