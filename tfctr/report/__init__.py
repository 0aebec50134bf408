"""Pages with pictures: one HTML file each, with nothing from elsewhere."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "INSTALL": "page",
        "Report": "stage",
        "Settings": "settings",
        "is_installed": "page",
        "write_runs": "runs",
    },
)
