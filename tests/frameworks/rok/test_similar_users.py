"""The search for similar users, against a loop over all earlier rows."""

from typing import Any

import numpy as np
import pytest

from tfctr.frameworks.rok import similar_users
from tfctr.frameworks.rok.similar_users import of_similar_users

USERS, LATEST = 4, 12


def rows(seed: int = 1) -> dict[str, np.ndarray]:
    """Rows by item and time; times are repeated, and id 1 is an unknown item."""
    rng = np.random.default_rng(seed)
    number = 90
    items, times = rng.choice([1, 3, 4, 6], number), rng.integers(0, 40, number)
    order = np.lexsort((times, items))
    tastes = rng.normal(size=(number, 3, 2)).astype("float32")
    tastes[7] = 0  # a user without events
    return {
        "items": items[order],
        "times": times[order],
        "clicks": rng.integers(0, 2, number).astype("float32"),
        "usual": rng.normal(size=(number, 3)).astype("float32"),
        "tastes": tastes,
        "population": rng.integers(0, 3, number),
    }


def by_a_loop(of: dict[str, np.ndarray], row: int) -> list[float]:
    tables = of["population"][row]
    earlier = [
        other
        for other in range(len(of["items"]))
        if of["items"][other] == of["items"][row] >= 3 and of["times"][other] < of["times"][row]
    ][-LATEST:]
    clicks, mine = of["clicks"], of["tastes"][row, tables]
    mean = (sum(clicks[other] for other in earlier) + 2.5) / (len(earlier) + 5)
    found = []
    for other in earlier:
        theirs = of["tastes"][other, tables]
        length = np.linalg.norm(mine) * np.linalg.norm(theirs)
        s = float(mine @ theirs / length) if length else 0.0
        found.append((s, clicks[other] - mean, of["usual"][other, tables]))
    found = sorted([f for f in found if f[0] > 0], key=lambda f: -f[0])[:USERS]

    def weighted(part: list[Any], column: int, power: int = 1) -> float:
        total = sum(f[0] ** power * f[column] for f in part)
        return total / (sum(f[0] ** power for f in part) + 0.5)

    return [
        mean,
        np.log1p(len(earlier)),
        weighted(found, 1),
        weighted(found, 1, power=2),
        weighted(found[:2], 1),
        weighted(found, 2),
        sum(f[0] for f in found),
        max([f[0] for f in found], default=0),
    ]


@pytest.mark.parametrize("block", [7, 256])
def test_the_numbers_are_those_of_a_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar_users, "BLOCK", block)
    monkeypatch.setattr(similar_users, "FEW", 2)
    of = rows()
    found = of_similar_users(**of, users=USERS, latest=LATEST)
    expected = [by_a_loop(of, row) for row in range(len(found))]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found, axis=0).min() > 0.1


def test_neither_a_row_s_own_click_nor_later_ones_matter() -> None:
    of = rows()
    before = of_similar_users(**of, users=USERS, latest=LATEST)
    when = 20
    late = of["times"] >= when
    turned = of | {"clicks": np.where(late, 1 - of["clicks"], of["clicks"])}
    after = of_similar_users(**turned, users=USERS, latest=LATEST)
    unchanged = of["times"] <= when
    assert (unchanged & late).any()  # their own click is turned
    np.testing.assert_array_equal(after[unchanged], before[unchanged])
    assert (after[~unchanged] != before[~unchanged]).any()


def test_items_do_not_mix() -> None:
    of = rows()
    whole = of_similar_users(**of, users=USERS, latest=LATEST)
    for item in np.unique(of["items"]):
        own = of["items"] == item
        alone = of_similar_users(
            **{name: values[own] for name, values in of.items()}, users=USERS, latest=LATEST
        )
        np.testing.assert_allclose(alone, whole[own], atol=1e-6)
