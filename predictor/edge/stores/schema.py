"""The tables of the edge's database, the same on SQLite and PostgreSQL.

Times are seconds since the epoch; columns that hold JSON are text which msgspec reads and writes. A change here needs
a migration beside it (`stores/migrations/versions`), and every migration only adds, so that two versions of the edge
can run side by side.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

# Names that Alembic can compare and a later migration can drop on either database.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# SQLite numbers rows by itself only where the type is exactly INTEGER.
Number = BigInteger().with_variant(Integer, "sqlite")

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),  # hex SHA-256 of the secret
    Column("scopes", Text, nullable=False),  # JSON list
    Column("limits", Text, nullable=False),  # JSON KeyLimits
    Column("policy", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
)

generations = Table(
    "generations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("fingerprint", Text, nullable=False, index=True),
    Column("active_key", Text, unique=True),  # set while identical requests may join
    Column("request", Text, nullable=False),  # JSON GenerationRequest
    Column("images", Integer, nullable=False),  # of the request, as what it costs: the queue is summed up often
    Column("megapixel_steps", Double, nullable=False),
    Column("revision", Text, nullable=False),
    Column("cacheable", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_until", Double, index=True),
    Column("created", Double, nullable=False),
    Column("deadline", Double, nullable=False),
    Column("started", Double),
    Column("finished", Double),
    Column("result", Text),  # JSON Result
    Column("problem", Text),  # JSON ProblemRecord
    CheckConstraint("state IN ('waiting', 'running', 'done', 'failed', 'cancelled')", name="state"),
    Index(None, "state", "created"),
    Index(None, "state", "finished"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text, nullable=False),  # of a key, or of an OIDC subject, which has no row in `keys`
    Column("request_id", Text, nullable=False),
    Column("generation_id", Text, ForeignKey("generations.id"), nullable=False, index=True),
    Column("state", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("finished", Double),
    Column("encoding", Text, nullable=False),  # JSON ImageEncoding
    Column("cached", Boolean, nullable=False),
    Column("joined", Boolean, nullable=False),
    Column("replay_of", Text),
    Column("body_hash", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("holder", Text),
    Column("held_until", Double, index=True),
    Column("webhook", Text),
    Column("end_user", Text),
    Column("problem", Text),  # JSON ProblemRecord
    Column("verdict", Text),  # JSON Verdict
    Column("prompt", Text),  # as the ledger will have it
    CheckConstraint("state IN ('active', 'done', 'failed', 'cancelled')", name="state"),
    UniqueConstraint("key_id", "idempotency_key"),
    Index(None, "tenant", "created", "id"),
    Index(None, "state"),
    Index(None, "key_id", "state"),
    Index(None, "key_id", "body_hash", "created"),
)

# Append-only: nothing updates or deletes a line.
ledger = Table(
    "ledger",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False, index=True),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("job_id", Text, unique=True),  # a job is booked once
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("images", Integer, nullable=False),
    Column("megapixel_steps", Double, nullable=False),
    Column("gpu_seconds", Double, nullable=False),
    Column("cold_starts", Integer, nullable=False),
    Column("cache_hits", Integer, nullable=False),
    Column("prompt", Text),
    Column("facts", Text, nullable=False),  # JSON object
    Index(None, "key_id", "at"),
    sqlite_autoincrement=True,  # a number is never given twice
)

# Webhooks that are still to be delivered, and what became of the others.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False, unique=True),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("owner", Text),
    Column("lease_until", Double),
    Column("error", Text),
    CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
    Index(None, "state", "next_at"),
)

images = Table(
    "images",
    metadata,
    Column("name", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("generation_id", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", Double, nullable=False, index=True),
)

cold_starts = Table(
    "cold_starts",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False, index=True),
    Column("seconds", Double, nullable=False),
    Column("phases", Text, nullable=False),  # JSON object: phase to seconds, in order
)

models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("capabilities", Text, nullable=False),  # JSON Capabilities
    Column("updated", Double, nullable=False),
)
