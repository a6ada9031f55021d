"""What models can do, remembered, so that an edge that starts need not wake one to know."""

import time

import msgspec
import structlog
from sqlalchemy import select

from predictor.core.request import Capabilities
from predictor.edge.stores.database import Database, upsert
from predictor.edge.stores.schema import models

log = structlog.get_logger("sdzero.edge")


class Models:
    """Capabilities by the model's name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> Capabilities | None:
        """What was last put; None for nothing, or for what another version has put and this one cannot read."""
        async with self._database.read() as connection:
            found = await connection.execute(select(models.c.capabilities).where(models.c.name == name))
            content = found.scalar_one_or_none()
        if content is None:
            return None
        try:
            return msgspec.json.decode(content, type=Capabilities)
        except msgspec.DecodeError as error:
            log.warning("capabilities forgotten", model=name, said=str(error))
            return None

    async def put(self, name: str, capabilities: Capabilities, now: float | None = None) -> None:
        """Remember them in the place of what was."""
        values = {
            "name": name,
            "capabilities": msgspec.json.encode(capabilities).decode(),
            "updated": time.time() if now is None else now,
        }
        async with self._database.write() as connection:
            statement = upsert(connection, models).values(values)
            await connection.execute(statement.on_conflict_do_update(index_elements=[models.c.name], set_=values))
