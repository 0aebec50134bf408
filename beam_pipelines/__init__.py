"""Batch jobs on Apache Beam, each with its own entry point."""

import logging


def _is_relevant(record: logging.LogRecord) -> bool:
    """False for the warning, when Beam is imported, that it can't use BigQuery: no job does."""
    return not str(record.msg).startswith("apitools not found")


logging.getLogger().addFilter(_is_relevant)
