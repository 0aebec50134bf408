"""The frame of every page: its style, and the libraries that it needs."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tfctr.config import ConfigError
from tfctr.data import files

LIBRARIES = ("jinja2", "matplotlib")  # of the extra `report`
INSTALL = "pip install 'tfctr[report]'"


def is_installed() -> bool:
    """Whether pages can be written."""
    return all(find_spec(name) is not None for name in LIBRARIES)


def check_installed() -> None:
    """Checks that pages can be written.

    Raises:
        ConfigError: a library is not installed.
    """
    if not is_installed():
        raise ConfigError(f"the page needs {' and '.join(LIBRARIES)}; `{INSTALL}`")


def write_page(path: Path, package: str, template: str, **values: Any) -> None:
    """Writes the page of a template, which extends `page.html`.

    Every string is escaped, but for pictures, which are `jinja2`'s `Markup`.

    Args:
        path: of the file.
        package: that the template is a file of, e.g. `__package__`.
        template: its name.
        values: what the template shows.
    """
    import jinja2

    loaders = [jinja2.PackageLoader(name, ".") for name in (package, __package__)]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "share": share, "size": size}
    page = environment.get_template(template).render(values)
    files.write(str(path), page.encode("utf-8", "replace"))


NONE = "–"


def number(value: float | None, digits: int = 4) -> str:
    """A number with its thousands apart; a dash for None and NaN.

    Example:
        >>> number(1234.5, 1), number(None)
        ('1,234.5', '–')
    """
    return NONE if value is None or value != value else f"{value:,.{digits}f}"


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    return NONE if value is None or value != value else f"{value:+.4f}".replace("-", "−")


def share(value: float | None) -> str:
    """A share as per cent; one that is not 0 does not look like 0."""
    if value is None or value != value:
        return NONE
    return "<0.1%" if 0 < value < 0.001 else f"{value:.1%}"


def size(value: float | None) -> str:
    """Bytes, in MB or GB."""
    if value is None:
        return NONE
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.0f} MB"
