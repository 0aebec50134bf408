"""The generated world: the same rows however they are cut, and the signals it promises."""

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from tfctr.data import world as world_module
from tfctr.data.world import BLOCK, START, World

WORLD = World(num_users=1_500, num_items=600, num_events=200_000)


@pytest.fixture(scope="module")
def log() -> dict[str, NDArray[Any]]:
    return columns(WORLD.events(0, WORLD.num_events))


def columns(table: pa.Table) -> dict[str, NDArray[Any]]:
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def test_same_seed_gives_same_rows_and_another_seed_does_not() -> None:
    world, again, other = World(seed=7), World(seed=7), World(seed=8)
    assert world.events(0, 5_000).equals(again.events(0, 5_000))
    assert world.users().equals(again.users())
    assert world.items().equals(again.items())
    rows, other_rows = columns(world.events(0, 5_000)), columns(other.events(0, 5_000))
    for name in ("user_id", "item_id", "true_probability"):
        assert np.mean(rows[name] == other_rows[name]) < 0.1
    assert not world.items().equals(other.items())


@pytest.mark.parametrize("size", [1_000, BLOCK - 1, BLOCK, BLOCK + 1])
def test_any_chunks_give_the_same_rows(size: int) -> None:
    world = World(num_events=2 * BLOCK + 5_000, extra_fields=2)
    start, stop = BLOCK - 1_500, world.num_events
    whole = world.events(0, stop).slice(start)
    parts = [world.events(at, min(at + size, stop)) for at in range(start, stop, size)][:60]
    joined = pa.concat_tables(parts)
    assert joined.combine_chunks().equals(whole.slice(0, joined.num_rows).combine_chunks())


def test_a_pickled_world_is_small_and_draws_the_same_rows() -> None:
    WORLD.events(0, 10)
    pickled = pickle.dumps(WORLD)
    assert len(pickled) < 1_000
    assert pickle.loads(pickled).events(30, 40).equals(WORLD.events(30, 40))


def test_extra_fields_change_no_other_column_and_are_zipf_distributed() -> None:
    plain, wide = World(num_events=50_000), World(num_events=50_000, extra_fields=12)
    rows = wide.events(0, 50_000)
    names = [f"context_{k:02d}" for k in range(12)]
    assert rows.schema == wide.event_schema
    assert [name for name in rows.column_names if name.startswith("context_")] == names
    assert rows.drop_columns(names).equals(plain.events(0, 50_000))
    values, counts = np.unique(columns(rows)["context_01"], return_counts=True)
    assert len(values) == 100
    first, tenth = (counts[values == f"value_{rank}"][0] for rank in (0, 9))
    expected = np.log(2 / 1) / np.log(11 / 10)
    assert first / tenth == pytest.approx(expected, rel=0.2)


def test_timestamps_rise_over_the_days_with_a_daily_rhythm(log: dict[str, NDArray[Any]]) -> None:
    timestamp = log["timestamp"]
    assert np.all(np.diff(timestamp) >= 0)
    assert START <= timestamp[0] < START + 3_600
    assert START + 59 * 86_400 < timestamp[-1] < START + 60 * 86_400
    np.testing.assert_array_equal(log["hour"], (timestamp // 3_600) % 24)
    by_hour = np.bincount(log["hour"], minlength=24)
    assert by_hour[20] > 3 * by_hour[8]


def test_clicks_are_calibrated_against_both_probabilities(log: dict[str, NDArray[Any]]) -> None:
    history_free = WORLD.history_free_probability(0, WORLD.num_events)
    for probability in (log["true_probability"], history_free):
        for part in np.array_split(np.argsort(probability), 20):
            expected, clicks = probability[part], log["click"][part]
            error = np.sqrt(np.sum(expected * (1 - expected))) / part.size
            assert abs(clicks.mean() - expected.mean()) < 4 * error


def test_best_auc_is_in_range_and_far_above_popularity(log: dict[str, NDArray[Any]]) -> None:
    best = WORLD.best_auc(0, WORLD.num_events)
    assert 0.78 < best < 0.83
    assert best == pytest.approx(roc_auc_score(log["click"], log["true_probability"]))
    popularity = np.bincount(log["item_id"])[log["item_id"]]
    assert best > roc_auc_score(log["click"], popularity) + 0.15


@pytest.mark.parametrize("seed", [2, 3])
def test_recent_history_is_worth_more_than_a_hundredth_of_auc(seed: int) -> None:
    world = World(seed=seed)
    clicks = columns(world.events(0, 100_000))["click"]
    without = roc_auc_score(clicks, world.history_free_probability(0, 100_000))
    assert world.best_auc(0, 100_000) > without + 0.02


def test_the_current_interest_shows_in_the_rows(log: dict[str, NDArray[Any]]) -> None:
    """Two items of one user share a brand more often when shown close in time."""
    brand = columns(WORLD.items())["brand"][log["item_id"] - 1]
    order = np.lexsort([log["timestamp"], log["user_id"]])
    user, time, brand = log["user_id"][order], log["timestamp"][order], brand[order]

    def share_of_equal_brands(lag: int, low: float, high: float) -> float:
        days = (time[lag:] - time[:-lag]) / 86_400
        pairs = (user[lag:] == user[:-lag]) & (days >= low) & (days < high)
        assert pairs.sum() > 2_000
        return float(np.mean(brand[lag:][pairs] == brand[:-lag][pairs]))

    assert share_of_equal_brands(1, 0, 2) > 1.2 * share_of_equal_brands(40, 10, 60)


def test_crosses_of_features_beat_single_features(log: dict[str, NDArray[Any]]) -> None:
    users, items = columns(WORLD.users()), columns(WORLD.items())
    user, item = log["user_id"] - 1, log["item_id"] - 1
    level = np.digitize(items["price"], np.quantile(items["price"], [0.25, 0.5, 0.75])).astype(str)
    age, category = users["age_group"][user].astype(str), items["category"][item].astype(str)
    device, price = log["device"].astype(str), level[item]
    single = [age, category, device, price, log["domain"].astype(str)]
    crosses = [np.char.add(age, category), np.char.add(device, price)]

    def auc(fields: list[NDArray[Any]]) -> float:
        rows = OneHotEncoder().fit_transform(np.stack(fields, axis=1))
        model = LogisticRegression(max_iter=200).fit(rows[:150_000], log["click"][:150_000])
        return roc_auc_score(log["click"][150_000:], model.predict_proba(rows[150_000:])[:, 1])

    assert auc(single + crosses) > auc(single) + 0.01


def test_domains_have_their_share_rate_and_items(log: dict[str, NDArray[Any]]) -> None:
    ads = log["domain"] == "ads"
    assert set(log["domain"]) == {"organic", "ads"}
    assert ads.mean() == pytest.approx(0.2, abs=0.005)
    assert 0.2 < log["click"][~ads].mean() < 0.3
    assert 0.05 < log["click"][ads].mean() < 0.1
    ads_items, organic_items = set(log["item_id"][ads]), set(log["item_id"][~ads])
    assert 0.2 < len(ads_items) / len(organic_items) < 0.45
    assert set(World(ads_share=0.0).events(0, 1_000)["domain"].to_pylist()) == {"organic"}


def test_ids_are_in_the_tables_and_positions_in_range(log: dict[str, NDArray[Any]]) -> None:
    users, items = WORLD.users(), WORLD.items()
    assert users["user_id"].to_pylist() == list(range(1, 1_501))
    assert items["item_id"].to_pylist() == list(range(1, 601))
    assert (log["user_id"].min(), log["item_id"].min()) >= (1, 1)
    assert log["user_id"].max() <= 1_500
    assert log["item_id"].max() <= 600
    assert set(log["position"]) == set(range(1, 9))
    assert users.num_rows == 1_500
    assert sum(column.null_count for table in (users, items) for column in table.columns) == 0


def test_popularity_is_long_tailed(log: dict[str, NDArray[Any]]) -> None:
    for name, low, high in (("user_id", 0.005, 0.05), ("item_id", 0.02, 0.15)):
        counts = np.sort(np.bincount(log[name])[1:])[::-1]
        assert low < counts[0] / counts.sum() < high
        assert counts[: len(counts) // 5].sum() > 0.5 * counts.sum()


def test_new_users_and_items_appear_late(log: dict[str, NDArray[Any]]) -> None:
    """Shares are of rows; the last fifth is a usual test part, the last tenth a stricter one."""
    for cut, low, high in ((160_000, 0.05, 0.15), (180_000, 0.02, 0.12)):
        unseen = {
            name: ~np.isin(log[name][cut:], log[name][:cut]) for name in ("user_id", "item_id")
        }
        assert min(part.mean() for part in unseen.values()) > 0.003
        assert low < np.mean(unseen["user_id"] | unseen["item_id"]) < high


def test_some_busy_users_stay_away_for_long(log: dict[str, NDArray[Any]]) -> None:
    busy = np.flatnonzero(np.bincount(log["user_id"]) >= 80)
    longest = [np.diff(log["timestamp"][log["user_id"] == user]).max() / 86_400 for user in busy]
    assert 0.1 < np.mean(np.array(longest) > 10) < 0.3


def test_item_quality_drifts_but_keeps_a_memory() -> None:
    quality = world_module._items(WORLD).quality
    weekly = np.corrcoef(quality[:, 0], quality[:, 1])[0, 1]
    whole = np.corrcoef(quality[:, 0], quality[:, -1])[0, 1]
    assert 0.5 < whole < weekly - 0.05
    assert np.std(quality[:, -1]) == pytest.approx(np.std(quality[:, 0]), rel=0.15)
    still = world_module._items(World(drift=0.0)).quality
    np.testing.assert_array_equal(still[:, 0], still[:, -1])


def test_item_texts_are_unique_and_tell_the_topic() -> None:
    """The item with the most similar text is far likelier of the same hidden topic than chance."""
    items = WORLD.items()
    titles, descriptions = items["title"].to_pylist(), items["description"].to_pylist()
    assert len(set(titles)) == len(titles)
    crowded = World(num_items=60_000).items()["title"].to_pylist()
    assert len(set(crowded)) == len(crowded)

    texts = [f"{a} {b}".lower().replace(",", "") for a, b in zip(titles, descriptions, strict=True)]
    vocabulary = {word: k for k, word in enumerate(sorted(set(" ".join(texts).split())))}
    bags = np.zeros((len(texts), len(vocabulary)))
    for row, text in enumerate(texts):
        bags[row, [vocabulary[word] for word in text.split()]] = 1
    bags *= np.log(len(texts) / bags.sum(axis=0))
    bags /= np.linalg.norm(bags, axis=1, keepdims=True)
    similarity = bags @ bags.T
    np.fill_diagonal(similarity, -1)
    nearest = similarity.argmax(axis=1)
    topic = world_module._items(WORLD).topic
    category = np.array(items["category"].to_pylist())
    assert np.mean(topic[nearest] == topic) > 5 / world_module.NUM_TOPICS
    assert np.mean(category[nearest] == category) > 0.4


def test_a_good_adjective_goes_with_a_higher_click_rate() -> None:
    latent = world_module._items(WORLD)
    first_words = [title.split()[0].lower() for title in WORLD.items()["title"].to_pylist()]
    tier = np.array([np.argwhere(word == world_module.QUALITY_WORDS)[0, 0] for word in first_words])
    means = [latent.quality[tier == k].mean() for k in range(3)]
    assert means[0] + 0.2 < means[1] < means[2] - 0.2


def test_tags_are_one_to_four_different_words_and_prices_lognormal() -> None:
    items = WORLD.items()
    tags = items["tags"].to_pylist()
    assert items.schema.field("tags").type == pa.list_(pa.string())
    assert {len(row) for row in tags} == {1, 2, 3, 4}
    assert all(len(set(row)) == len(row) for row in tags)
    log_price = np.log(items["price"].to_numpy())
    assert abs(np.mean(log_price) - np.median(log_price)) < 0.2 * np.std(log_price)


@pytest.mark.parametrize("days", [1, 7, 14])
def test_the_smallest_worlds_work(days: int) -> None:
    world = World(num_users=1, num_items=16, num_events=500, days=days, seed=0)
    rows = columns(world.events(0, 500))
    assert set(rows["user_id"]) == {1}
    assert rows["item_id"].max() <= 16
    assert np.all(np.isfinite(rows["true_probability"]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_users", 0),
        ("num_items", 15),
        ("num_events", -1),
        ("num_events", 1e5),
        ("seed", -1),
        ("days", 0.5),
        ("ads_share", 1.1),
        ("ads_share", "0.2"),
        ("drift", float("nan")),
        ("extra_fields", True),
    ],
)
def test_bad_parameters_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"World: `{name}` must be .* Received: {value!r}"):
        World(**{name: value})


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (0, 100_001)])
def test_rows_outside_the_log_are_refused(start: int, stop: int) -> None:
    for read in (World().events, World().best_auc, World().history_free_probability):
        with pytest.raises(ValueError, match=rf"100000 .*start={start}, stop={stop}"):
            read(start, stop)


def test_empty_slices_keep_the_schema_and_have_no_auc() -> None:
    assert WORLD.events(5, 5).num_rows == 0
    assert WORLD.events(5, 5).schema == WORLD.event_schema
    with pytest.raises(ValueError, match="0 clicks in 0 rows"):
        WORLD.best_auc(5, 5)
