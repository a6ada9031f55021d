"""What the edge keeps: keys, jobs, the ledger, images, cached results, quotas."""

from predictor.lazily import postponed

# The stores speak SQL; these two bring SQLAlchemy's ORM, a third of the time that the edge's imports of it take.
with postponed("sqlalchemy.ext.asyncio.scoping", "sqlalchemy.ext.asyncio.session"):
    import sqlalchemy.ext.asyncio  # noqa: F401
