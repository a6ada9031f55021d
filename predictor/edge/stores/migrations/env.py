"""What Alembic runs around the steps: the connection, and its transaction, are those of `Database.open`."""

from alembic import context

from predictor.edge.stores.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,  # for its names of constraints
    transactional_ddl=True,
)
context.run_migrations()
