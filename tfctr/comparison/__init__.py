"""Runs side by side: what each is better at, by intervals that are paired by user, and its cost."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "ScoredRows": "scored_rows",
        "compare": "compared",
        "multiply_adds": "cost",
        "multiply_adds_of_request": "cost",
        "print_comparison": "compared",
    },
)
