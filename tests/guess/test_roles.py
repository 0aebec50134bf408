import numpy as np
import pyarrow as pa
import pytest

from tfctr.guess.columns import Column
from tfctr.guess.names import about, identity, outcome, words
from tfctr.guess.roles import Sides, label, tells

ROWS = 400
PLACE = np.arange(ROWS)


def columns(**values):
    return {name: Column(name, pa.array(column)) for name, column in values.items()}


@pytest.mark.parametrize(
    ("values", "column", "keys", "question"),
    [
        ({"member": PLACE % 2, "click": PLACE % 3 == 0}, "click", {}, ""),
        ({"like": PLACE % 2, "is_click": PLACE % 3 == 0}, "is_click", {}, "2 columns could be the"),
        ({"a": PLACE % 2}, "a", {}, "is it the label?"),
        ({"a": PLACE % 2, "b": PLACE % 3 == 0}, "a", {}, "2 columns could be the label: a, b; is"),
        ({"member": PLACE % 2, "click": PLACE * 0}, "click", {}, "the sample holds no click; are"),
        (
            {"buy": PLACE % 2, "click": PLACE * 0},
            "buy",
            {},
            "2 columns could be the label: buy, cl",
        ),
        (
            {"vip": PLACE % 2, "rating": 1 + PLACE % 5},
            "rating",
            {"positive_above": 3},
            "is more tha",
        ),
        (
            {"stars": 1 + PLACE % 10},
            "stars",
            {"positive_above": 6},
            "is more than 6 of 10 a click?",
        ),
        ({"score": PLACE % 11 / 2}, "score", {"positive_above": 3}, "is more than 3 of 5 a click?"),
        ({"level": 1 + PLACE % 3}, "level", {"positive_above": 1}, "is it stars? is more than 1"),
    ],
)
def test_the_label(values, column, keys, question):
    found = label(columns(**values), "log.csv")
    assert (found.column, found.keys) == (column, keys)
    assert found.question.startswith(question)
    assert bool(found.question) == bool(question)


def test_the_side_is_where_the_values_repeat():
    owners = columns(user=PLACE % 40, item=PLACE % 30)
    sides = Sides(owners["user"], owners["item"])
    others = columns(
        of_user=PLACE % 40 % 7,
        of_item=[None if i % 9 == 0 else f"{i % 30 % 7}" for i in range(ROWS)],
        of_both=PLACE % 10 % 3,
        hour=PLACE % 24,
        user_clicks=PLACE // 10,
    )
    assert {name: sides.of(column)[0] for name, column in others.items()} == {
        "of_user": "user",
        "of_item": "item",
        "of_both": "item",
        "hour": "context",
        "user_clicks": "context",  # its values change, whatever its name says
    }
    assert [bool(sides.of(column)[1]) for column in others.values()] == [
        *(False, False, True, False, False)
    ]
    unknown = Sides(None, None)
    named = columns(user_age=PLACE % 7, item_price=PLACE % 9, user_item=PLACE % 5)
    assert [unknown.of(column)[0] for column in named.values()] == ["user", "item", "context"]
    once = Sides(Column("user", pa.array(PLACE)), None)
    assert once.of(named["item_price"]) == ("item", "by its name; is it of the item?")
    assert once.of(named["user_item"])[1].startswith("too few users repeat in the sample")


def test_what_nearly_tells_the_label():
    rng = np.random.default_rng(0)
    clicks = rng.random(ROWS) < 0.3
    found = columns(
        dwell=np.where(clicks, 5 + rng.random(ROWS), 0),
        bought=pa.array(np.where(clicks, "yes", None).tolist()),
        helpful=np.where(rng.random(ROWS) < 0.8, clicks, ~clicks),
        noise=rng.random(ROWS),
        own=PLACE,
    )
    assert {name for name, column in found.items() if tells(column, clicks)} == {"dwell", "bought"}


def test_names_are_read_as_words():
    assert words("reviewerID") == ["reviewer", "id"]
    assert words("user-item_affinity_12") == ["user", "item", "affinity", "12"]
    assert identity("userId", ("user",)) == 0
    assert identity("user_age", ("user",)) is None
    assert outcome("is_click") is not None
    assert outcome("click_rate") is None
    assert (about("user_age"), about("itemPrice"), about("user_item"), about("age")) == (
        *("user", "item", None, None),
    )
