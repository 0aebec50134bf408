"""Pictures in the colours of a page, and numbers as a page shows them."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from tfctr.report.page import number, share, signed, size
from tfctr.report.pictures import colour, draw, style
from tfctr.report.run_pictures import Dot, dots

HOSTILE = '<b>"$x$ & #0b0b00'


def test_a_picture_has_the_colours_of_the_page_and_escapes_its_text() -> None:
    def into(axes: Any) -> None:
        for series in (0, 7):
            axes.plot([0, 1], [series, 1], color=colour(series), linestyle=style(series))
        axes.set_xlabel(HOSTILE)

    found = draw(HOSTILE, "two lines", into)
    root = ElementTree.fromstring(re.sub("xlink:", "", str(found.svg)))  # it is XML
    assert root.get("aria-label") == f"{HOSTILE}. two lines"
    assert root.get("role") == "img"
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert HOSTILE in texts
    colours = {*re.findall(r"(?:stroke|fill): ([^;\"]+)", str(found.svg))}
    assert colours == {"none", "currentColor", "var(--line)", "var(--series-0)", "var(--series-1)"}
    assert "<metadata" not in found.svg
    assert str(draw(HOSTILE, "two lines", into).svg) == str(found.svg)


def test_numbers_as_they_are_shown() -> None:
    nan = float("nan")
    assert [number(x) for x in (0.5, 1234.56789, None, nan)] == ["0.5000", "1,234.5679", "–", "–"]
    assert [signed(x) for x in (0.00006, -0.25, None)] == ["+0.0001", "−0.2500", "–"]
    assert [share(x) for x in (0.0, 0.0004, 0.123, None)] == ["0.0%", "<0.1%", "12.3%", "–"]
    assert [size(x) for x in (5e6, 1.25e9, None)] == ["5 MB", "1.2 GB", "–"]


def test_a_long_name_leaves_room_for_the_values() -> None:
    name = "reviews-dcnv2-drop-_3_-batch_size-256-epochs-5-learning_rate-0.01"
    picture = dots("AUC", [name, "base rate"], [Dot(0, 0, 0.8, 0.7, 0.9), Dot(1, None, 0.5)], 4.2)
    assert "reviews-dcnv2-d…ng_rate-0.01" in picture.svg
    assert name in picture.svg  # for those who do not see it
