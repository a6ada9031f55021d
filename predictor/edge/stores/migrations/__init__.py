"""How the database came to its tables, as steps that Alembic takes.

A change of `schema.py` has its step in `versions/rN_MMMM_words.py`, with the revision `N_MMMM`. A step that only adds
(tables, indexes, columns that may be null or have a server default) counts MMMM up: the edges of the version before
still work with such a database, while a rollout replaces them and after it was rolled back. One that takes away or
renames counts N up, and older edges refuse to start on it.
"""

import re
from pathlib import Path

from sqlalchemy.engine import Connection

FOLDER = Path(__file__).parent
STEP = re.compile(r"r(\d+_\d{4})_\w+\.py")


def known() -> list[str]:
    """The revisions that this version can make, oldest first; read from names, for Alembic is slow to import."""
    steps = (STEP.fullmatch(path.name) for path in (FOLDER / "versions").iterdir())
    return sorted((step[1] for step in steps if step), key=_order)


def due(revision: str | None) -> bool:
    """Whether a database of this revision, None for an empty one, must be migrated before it can be used.

    Raises:
        ValueError: a newer version has made it into something that this one does not understand.
    """
    revisions = known()
    newest = revisions[-1]
    if revision is None or revision in revisions:
        return revision != newest
    if re.fullmatch(r"\d+_\d{4}", revision) and _order(newest) < _order(revision) and _same(newest, revision):
        return False
    raise ValueError(
        f"database: it is of revision {revision!r}; allowed: up to {newest}, or newer and beginning with "
        f"{newest.partition('_')[0]}_; start the version of sdzero that has migrated it"
    )


def upgrade(connection: Connection) -> None:
    """Take the steps that are due, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    command.upgrade(config, "head")


def _order(revision: str) -> tuple[int, ...]:
    return tuple(map(int, revision.split("_")))


def _same(one: str, other: str) -> bool:
    return one.partition("_")[0] == other.partition("_")[0]
