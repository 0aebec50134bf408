"""Pictures of pages: SVG without a background, in the colours of the page, light or dark."""

import html
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

WIDTH, HEIGHT = 3.6, 2.6  # inches; a page shows one at 290 to 400 pixels
WIDER = 4.2  # of names with dots

# Matplotlib needs colours; in the SVG the page's variables take their places.
TEXT, LINE = "#0a0a01", "#0a0a02"
_SERIES = "#0b0b"  # and two digits
NUM_COLOURS = 6
STYLES = ("-", "--", ":")


class Picture(NamedTuple):
    """A picture, to be shown under its title.

    Attributes:
        title: text.
        svg: `jinja2`'s `Markup`, which templates do not escape.
    """

    title: str
    svg: Any


def colour(series: int) -> str:
    """Of the run with this number, for Matplotlib."""
    return f"{_SERIES}{series % NUM_COLOURS:02x}"


def style(series: int) -> str:
    """The style of its lines, other where a colour comes again."""
    return STYLES[series // NUM_COLOURS % len(STYLES)]


def draw(
    title: str,
    text: str,
    into: Callable[[Any], None],
    width: float = WIDTH,
    height: float = HEIGHT,
) -> Picture:
    """A picture with one pair of axes.

    Args:
        title: text.
        text: what it shows, for those who do not see it.
        into: draws into Matplotlib's `Axes`.
        width: inches.
        height: inches.
    """
    from markupsafe import Markup
    from matplotlib.figure import Figure

    with _settings(title):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        into(axes)
        content = io.StringIO()
        none = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # equal runs, equal pictures
        figure.savefig(content, format="svg", transparent=True, metadata=none)
    svg = content.getvalue()
    return Picture(title, Markup(_of_page(svg[svg.index("<svg") :], f"{title}. {text}")))


def values_text(names: Sequence[str], values: Sequence[Sequence[float]], digits: int = 3) -> str:
    """`a: 0.100, 0.200; b: ...`, for `draw`."""
    of_each = [", ".join(f"{value:.{digits}f}" for value in found) for found in values]
    return "; ".join(f"{name}: {text}" for name, text in zip(names, of_each, strict=True))


@contextmanager
def _settings(salt: str) -> Iterator[None]:
    import matplotlib

    settings: Any = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": salt,  # ids of two pictures differ
        "text.parse_math": False,  # a $ is a $
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # wider than most, so a browser's own text fits
        "font.size": 9,
        "text.color": TEXT,
        "axes.labelcolor": TEXT,
        "axes.edgecolor": TEXT,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
        "axes.unicode_minus": True,
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context(settings):
        yield


def _of_page(svg: str, label: str) -> str:
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in each picture, and never referred to
    svg = re.sub(rf"(fill|stroke): ({TEXT}|{LINE})", _of_theme, svg)
    svg = re.sub(rf"(fill|stroke): {_SERIES}(\d\d)", _of_series, svg)
    said = html.escape(label)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{said}" ', 1)


def _of_theme(found: re.Match[str]) -> str:
    return f"{found[1]}: {'currentColor' if found[2] == TEXT else 'var(--line)'}"


def _of_series(found: re.Match[str]) -> str:
    return f"{found[1]}: var(--series-{int(found[2])})"
