"""Times in logs: int64 since 1970-01-01 00:00 UTC, in the unit that a config names."""

UNITS = {"s": 1, "ms": 10**3, "us": 10**6}  # per second
SECONDS_PER_DAY = 86_400
MAX_TIME = 4_102_444_800  # 2100-01-01 in seconds; later times mean a wrong unit
