"""One JSON object a line on stdout, from this code and from the libraries alike."""

import logging
import sys

import structlog

# They say at `info` what the journal says better (uvicorn.access, kserve.trace) or what nobody reads; at `debug` some
# say every value of a statement, prompts included.
QUIET = (
    "aiosqlite",
    "asyncio",
    "httpcore",
    "httpx",
    "kserve",
    "kserve.trace",
    "uvicorn",
    "uvicorn.access",
    "uvicorn.error",
)


def configure(level: str) -> None:
    """Send every logger of the process to stdout as JSON; `level` is the least severe that is written."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(allow=()), *shared],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, getattr(logging, level.upper())))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
