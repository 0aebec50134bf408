"""Batch jobs on Apache Beam, each with its own entry point."""

import logging


def _is_news(record: logging.LogRecord) -> bool:
    """Beam warns, when it is imported, that it cannot talk to BigQuery, which nothing here does."""
    return not str(record.msg).startswith("apitools not found")


logging.getLogger().addFilter(_is_news)
