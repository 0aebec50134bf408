import io
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tfctr.metrics import (
    auc,
    bootstrap_interval,
    calibration_bins,
    calibration_ratio,
    evaluate,
    expected_calibration_error,
    gauc,
    log_loss,
    normalized_entropy,
    print_report,
)
from tfctr.metrics.ranking import BLOCK, number_users, rank_positives, user_aucs

# Few distinct scores, so that most examples have ties; both infinities and both zeros among them.
SCORES = st.sampled_from([-math.inf, -2.0, -0.0, 0.0, 1e-300, 0.5, 3.0, math.inf])
ROWS = st.lists(st.tuples(st.integers(0, 1), SCORES, st.integers(0, 4)), min_size=1, max_size=40)
FINITE_ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.floats(-30, 30) | st.sampled_from([0.0, 1.0])),
    min_size=2,
    max_size=40,
)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def simulate(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the very probabilities that are predicted."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1.5, 1.0, rows)
    return (generator.random(rows) < sigmoid(logits)).astype(np.int64), logits


def pairwise_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    wins, pairs = 0.0, 0
    for click in scores[labels == 1]:
        for other in scores[labels == 0]:
            wins += 1.0 if click > other else 0.5 if click == other else 0.0
            pairs += 1
    return wins / pairs if pairs else math.nan


def looped_gauc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float:
    total, weight = 0.0, 0
    for user in set(users.tolist()):
        rows = users == user
        value = pairwise_auc(labels[rows], scores[rows])
        if not math.isnan(value):
            total += rows.sum() * value
            weight += rows.sum()
    return total / weight if weight else math.nan


def looped_ece(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> float:
    rows = sorted(zip(probabilities.tolist(), labels.tolist(), strict=True))
    members: dict[int, list[tuple[float, int]]] = {}
    bin_of: dict[float, int] = {}
    for position, (probability, label) in enumerate(rows):
        bin_of.setdefault(probability, position * bins // len(rows))
        members.setdefault(bin_of[probability], []).append((probability, label))
    error = 0.0
    for group in members.values():
        predicted = sum(probability for probability, _ in group) / len(group)
        observed = sum(label for _, label in group) / len(group)
        error += len(group) / len(rows) * abs(predicted - observed)
    return error


def test_auc_by_hand() -> None:
    # Pairs (click, other): .8>.3, .8>.5, .5>.3 win and .5=.5 is a half: 3.5 of 4.
    assert auc(np.array([1, 0, 1, 0]), np.array([0.8, 0.3, 0.5, 0.5])) == 3.5 / 4


@given(ROWS)
def test_auc_counts_every_pair(rows: list[tuple[int, float, int]]) -> None:
    labels, scores, _ = (np.array(column) for column in zip(*rows, strict=True))
    np.testing.assert_allclose(auc(labels, scores), pairwise_auc(labels, scores), rtol=1e-12)


@pytest.mark.parametrize("decimals", [1, 3, 12])
@pytest.mark.parametrize("label_dtype", [np.int64, np.float32, bool])
def test_auc_agrees_with_sklearn(decimals: int, label_dtype: type) -> None:
    labels, logits = simulate(20_000)
    scores = logits.round(decimals)
    np.testing.assert_allclose(
        auc(labels.astype(label_dtype), scores),
        sklearn.metrics.roc_auc_score(labels, scores),
        rtol=1e-12,
    )


@pytest.mark.parametrize("clicked", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_resampled_aucs_agree_with_sklearn(clicked: float, decimals: int) -> None:
    generator = np.random.default_rng(1)
    rows, users, resamples = 3 * BLOCK, 300, 3  # more than a block of negatives, or of clicks
    labels = (generator.random(rows) < clicked).astype(np.int64)
    scores = (labels + 2 * generator.normal(size=rows)).round(decimals)
    user = generator.integers(users, size=rows)
    counts = generator.poisson(1.0, [users, resamples]).astype(np.uint8)
    ranking = rank_positives(labels == 1, scores, np.argsort(scores))
    np.testing.assert_allclose(
        ranking.resampled_aucs(user[ranking.order], counts),
        [
            sklearn.metrics.roc_auc_score(labels, scores, sample_weight=counts[user, resample])
            for resample in range(resamples)
        ],
        rtol=1e-12,
    )


@pytest.mark.parametrize("shift", [-100.0, 100.0])
def test_resampled_aucs_where_no_negative_is_between_positives(shift: float) -> None:
    labels = np.repeat([0, 1], 2 * BLOCK)  # so that the negatives end where a block does
    scores = np.arange(4 * BLOCK) + shift * BLOCK * labels
    ranking = rank_positives(labels == 1, scores, np.argsort(scores))
    counts = np.random.default_rng(1).poisson(1.0, [len(labels), 2])
    found = ranking.resampled_aucs(ranking.order, counts)
    np.testing.assert_array_equal(found, float(shift > 0))


def test_a_resample_without_clicks_has_no_auc() -> None:
    ranking = rank_positives(np.array([True, False]), np.array([2.0, 1.0]), np.array([1, 0]))
    found = ranking.resampled_aucs(ranking.order, np.array([[1, 0, 1], [1, 1, 0]]))
    np.testing.assert_array_equal(found, [1.0, np.nan, np.nan])


def test_counts_of_users_equal_repeated_rows() -> None:
    labels, logits = simulate(500)
    scores = logits.round(1)
    counts = np.random.default_rng(2).poisson(1.0, 500)
    ranking = rank_positives(labels == 1, scores, np.argsort(scores))
    repeated = auc(np.repeat(labels, counts), np.repeat(scores, counts))
    found = ranking.resampled_aucs(ranking.order, counts[:, None])
    assert found[0] == pytest.approx(repeated, rel=1e-12)


@pytest.mark.parametrize(
    ("keys", "dtype"),
    [
        ([3, -1, 3, 7], np.int64),
        ([2**63, 5, 2**63, 2**64 - 1], np.uint64),
        (["b", "a", "b", "c"], np.str_),
    ],
)
def test_users_are_numbered_in_their_order(keys: list[Any], dtype: type) -> None:
    np.testing.assert_array_equal(number_users(np.array(keys, dtype), 4), [1, 0, 1, 2])


def test_user_aucs_are_those_of_each_user_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfctr.metrics.ranking.ROWS_AT_ONCE", 50)
    generator = np.random.default_rng(3)
    labels, scores = generator.integers(2, size=600), generator.normal(size=600).round(1)
    user = np.repeat([0, 1, 2, 3], [100, 3, 47, 450])[generator.permutation(600)]
    aucs, weights = user_aucs(labels == 1, scores, np.argsort(scores), user)
    expected = [auc(labels[user == u], scores[user == u]) for u in range(4)]
    np.testing.assert_allclose(aucs, np.nan_to_num(expected), rtol=1e-12)
    np.testing.assert_array_equal(weights, np.bincount(user) * ~np.isnan(expected))


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_ranking(label: int) -> None:
    labels, scores = np.full(4, label), np.arange(4.0)
    assert math.isnan(auc(labels, scores))
    assert math.isnan(gauc(labels, scores, np.array([1, 1, 2, 2])))
    assert math.isnan(normalized_entropy(labels, scores))


def test_gauc_by_hand() -> None:
    # User 7: one tie and one win of two pairs, 0.75 over 3 rows. User 8: 0 of one pair over 2 rows.
    # User 9 has one class and does not count.
    labels = np.array([1, 0, 0, 0, 1, 1, 1])
    scores = np.array([0.5, 0.5, 0.1, 0.9, 0.2, 0.3, 0.4])
    users = np.array([7, 7, 7, 8, 8, 9, 9])
    assert gauc(labels, scores, users) == pytest.approx((3 * 0.75 + 2 * 0.0) / 5)


@given(ROWS)
def test_gauc_equals_a_loop_over_users(rows: list[tuple[int, float, int]]) -> None:
    labels, scores, users = (np.array(column) for column in zip(*rows, strict=True))
    np.testing.assert_allclose(
        gauc(labels, scores, users), looped_gauc(labels, scores, users), rtol=1e-12
    )


@pytest.mark.parametrize("kind", ["S", "U", object, np.uint8, np.int32])
def test_gauc_takes_any_kind_of_key(kind: str | type) -> None:
    labels, logits = simulate(2_000)
    users = np.random.default_rng(3).integers(0, 100, 2_000)
    keys = users.astype("S").astype(object) if kind is object else users.astype(kind)
    expected = looped_gauc(labels, logits, users)
    assert gauc(labels, logits, keys) == pytest.approx(expected, rel=1e-12)


def test_gauc_of_one_user_is_auc() -> None:
    labels, logits = simulate(1_000)
    assert gauc(labels, logits, np.zeros(1_000, int)) == pytest.approx(auc(labels, logits))


def test_gauc_ignores_what_is_constant_within_a_user() -> None:
    labels, logits = simulate(2_000)
    users = np.random.default_rng(3).integers(0, 50, 2_000)
    shifted = logits + 10.0 * users
    assert gauc(labels, shifted, users) == pytest.approx(gauc(labels, logits, users))
    assert abs(auc(labels, shifted) - auc(labels, logits)) > 0.1


@given(FINITE_ROWS)
def test_log_loss_agrees_with_sklearn(rows: list[tuple[int, float]]) -> None:
    labels, logits = (np.array(column) for column in zip(*rows, strict=True))
    # Two columns, each formed without cancellation, are what sklearn needs to be exact here.
    probabilities = np.stack([sigmoid(-logits), sigmoid(logits)], axis=1)
    expected = sklearn.metrics.log_loss(labels, probabilities, labels=[0, 1])
    # sklearn clips probabilities at 2e-16, which a right and sure row feels by as much.
    np.testing.assert_allclose(log_loss(labels, logits), expected, rtol=1e-9, atol=1e-15)


def test_extreme_logits_stay_finite() -> None:
    labels, logits = np.array([1, 0, 1, 0]), np.array([1e4, -1e4, -1e4, 1e4], dtype=np.float32)
    assert log_loss(labels, logits) == 5_000
    assert normalized_entropy(labels, logits) == pytest.approx(5_000 / math.log(2))
    with np.errstate(all="raise", under="ignore"):
        results = evaluate(labels, logits, resamples=5)
    assert results["expected_calibration_error"] == 0.5
    assert results["calibration_ratio"] == 1


def test_predicting_the_base_rate_gives_normalized_entropy_one_and_auc_half() -> None:
    labels = np.repeat([0, 1], [900, 100])
    logits = np.full(1_000, math.log(0.1 / 0.9))
    assert normalized_entropy(labels, logits) == pytest.approx(1, rel=1e-12)
    assert auc(labels, logits) == 0.5
    assert expected_calibration_error(labels, sigmoid(logits)) == pytest.approx(0, abs=1e-12)
    assert calibration_ratio(labels, sigmoid(logits)) == pytest.approx(1, rel=1e-12)


def test_calibration_error_by_hand() -> None:
    # Bins of two rows: |(.1 + .2) - 0|, |(.6 + .8) - 1|, over 4 rows.
    labels, probabilities = np.array([0, 1, 0, 0]), np.array([0.1, 0.8, 0.2, 0.6])
    error = expected_calibration_error(labels, probabilities, bins=2)
    assert error == pytest.approx((0.3 + 0.4) / 4)
    found = calibration_bins(labels, probabilities, bins=2)
    assert found.rows.tolist() == [2, 2]
    np.testing.assert_allclose(found.predicted, [0.15, 0.7])
    np.testing.assert_allclose(found.observed, [0, 0.5])


def test_bins_that_a_tie_leaves_empty_are_left_out() -> None:
    found = calibration_bins(np.array([0, 1, 1, 0]), np.array([0.5, 0.5, 0.5, 0.9]), bins=4)
    assert [values.tolist() for values in found] == [[3, 1], [0.5, 0.9], [pytest.approx(2 / 3), 0]]


def test_equal_predictions_share_a_bin_whatever_their_order() -> None:
    # The tie at .5 lies across the edge: split, its rows would make two bins that are each off.
    labels, probabilities = np.array([0, 1, 0, 1]), np.full(4, 0.5)
    assert expected_calibration_error(labels, probabilities, bins=2) == 0
    assert expected_calibration_error(np.sort(labels), probabilities, bins=2) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.3]) | st.floats(0, 1)),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 25),
)
def test_calibration_error_equals_a_loop(rows: list[tuple[int, float]], bins: int) -> None:
    labels, probabilities = (np.array(column) for column in zip(*rows, strict=True))
    error = expected_calibration_error(labels, probabilities, bins)
    assert error == pytest.approx(looped_ece(labels, probabilities, bins), abs=1e-12)
    reversed_error = expected_calibration_error(labels[::-1], probabilities[::-1], bins)
    assert reversed_error == pytest.approx(error, abs=1e-12)


def test_a_calibrated_model_is_measured_as_calibrated_and_a_shifted_one_is_not() -> None:
    labels, logits = simulate(200_000)
    assert expected_calibration_error(labels, sigmoid(logits)) < 0.006
    assert calibration_ratio(labels, sigmoid(logits)) == pytest.approx(1, abs=0.02)
    assert expected_calibration_error(labels, sigmoid(logits + 1)) > 0.1
    assert calibration_ratio(labels, sigmoid(logits + 1)) > 1.5
    # A shift keeps the order of rows: AUC is blind to it, normalised entropy is not.
    assert auc(labels, logits + 1) == pytest.approx(auc(labels, logits))
    assert normalized_entropy(labels, logits) < normalized_entropy(labels, logits + 1)


def test_calibration_ratio_without_a_click_is_undefined() -> None:
    assert math.isnan(calibration_ratio(np.zeros(3), np.full(3, 0.1)))


def test_intervals_contain_the_estimate_and_shrink_with_rows() -> None:
    widths = {}
    for rows in (500, 50_000):
        labels, logits = simulate(rows)
        users = np.arange(rows) // 20
        intervals = bootstrap_interval(labels, logits, users, resamples=100)
        estimates = {
            "auc": auc(labels, logits),
            "log_loss": log_loss(labels, logits),
            "gauc": gauc(labels, logits, users),
        }
        assert intervals.keys() == estimates.keys()
        for name, (low, high) in intervals.items():
            assert low < estimates[name] < high
        widths[rows] = {name: high - low for name, (low, high) in intervals.items()}
    for name in ("auc", "log_loss", "gauc"):
        # 100 times the rows: a tenth of the width.
        assert 5 < widths[500][name] / widths[50_000][name] < 20


def test_intervals_equal_resampling_by_repeating_rows() -> None:
    labels, logits = simulate(400)
    generator = np.random.default_rng(9)
    aucs, losses = [], []
    for _ in range(1_000):
        rows = generator.integers(400, size=400)
        aucs.append(sklearn.metrics.roc_auc_score(labels[rows], logits[rows]))
        losses.append(log_loss(labels[rows], logits[rows]))
    intervals = bootstrap_interval(labels, logits, resamples=1_000)
    # Both ends are themselves random, by about 6% of the width at 1,000 resamples.
    for name, plain in (("auc", aucs), ("log_loss", losses)):
        expected = np.quantile(plain, [0.025, 0.975])
        np.testing.assert_allclose(intervals[name], expected, atol=0.2 * np.ptp(expected))


def test_intervals_depend_on_the_seed_alone() -> None:
    labels, logits = simulate(1_000)
    users = np.arange(1_000) // 10
    first = bootstrap_interval(labels, logits, users, resamples=20, seed=4)
    assert first == bootstrap_interval(labels, logits, users, resamples=20, seed=4)
    assert first != bootstrap_interval(labels, logits, users, resamples=20, seed=5)


def test_row_intervals_cover_the_true_value_about_95_times_in_100() -> None:
    # Normal scores one apart: AUC = Phi(1 / sqrt 2).
    truth = 0.5 * (1 + math.erf(0.5))
    covered = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        labels = (generator.random(300) < 0.3).astype(int)
        scores = generator.normal(size=300) + labels
        low, high = bootstrap_interval(labels, scores, seed=seed)["auc"]
        covered += low <= truth <= high
    # Binomial(200, 0.95) is in 180..199 but for one in a thousand; percentiles run a little narrow.
    assert 178 <= covered <= 199


def test_user_intervals_cover_the_true_value_when_users_differ() -> None:
    # Half of the users are predicted well (scores two apart), half not at all. Rows drawn alone
    # would miss that the share of the former varies, and give intervals half as wide.
    truth = (0.5 * (1 + math.erf(1)) + 0.5) / 2
    covered = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        users = np.arange(80).repeat(20)
        labels = (generator.random(1_600) < 0.5).astype(int)
        strength = generator.choice([0.0, 2.0], size=80)[users]
        scores = generator.normal(size=1_600) + strength * labels
        low, high = bootstrap_interval(labels, scores, users, seed=seed)["gauc"]
        covered += low <= truth <= high
    assert 178 <= covered <= 199


def test_clustered_intervals_equal_resampling_by_repeating_users() -> None:
    labels, logits = simulate(400)
    users = np.random.default_rng(3).integers(0, 40, 400)
    found = {
        name: bootstrap_interval(labels, logits, users, resamples=50, seed=2)[name]
        for name in ("auc", "gauc", "log_loss")
    }
    generator = np.random.default_rng(2)
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(50):
        rows, copies = [], []
        for copy, user in enumerate(generator.integers(40, size=40)):
            rows.append(np.flatnonzero(users == user))
            copies.append(np.full(len(rows[-1]), copy))
        these = np.concatenate(rows)
        drawn["auc"].append(auc(labels[these], logits[these]))
        drawn["gauc"].append(gauc(labels[these], logits[these], np.concatenate(copies)))
        drawn["log_loss"].append(log_loss(labels[these], logits[these]))
    for name, values in drawn.items():
        np.testing.assert_allclose(found[name], np.quantile(values, [0.025, 0.975]), rtol=1e-12)


def clustered(users: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of users of whom some are well predicted, and others are not at all."""
    generator = np.random.default_rng(seed)
    user = np.arange(users).repeat(rows)
    labels = (generator.random(len(user)) < 0.5).astype(int)
    strength = generator.choice([0.0, 2.0], size=users)[user]
    taste = generator.normal(size=users)[user]
    return labels, generator.normal(size=len(user)) + strength * labels + taste, user


def test_intervals_of_users_cover_the_true_auc_and_those_of_rows_do_not() -> None:
    labels, logits, _ = clustered(100_000, 5, seed=999)
    truth = auc(labels, logits)
    covered = {"users": 0, "rows": 0}
    for seed in range(100):
        labels, logits, users = clustered(80, 20, seed)
        for name, of_whom in (("users", users), ("rows", None)):
            low, high = bootstrap_interval(labels, logits, of_whom, seed=seed)["auc"]
            covered[name] += low <= truth <= high
    # Binomial(100, 0.95) is in 87..100 but for one in a thousand; percentiles run a little narrow.
    assert covered["users"] >= 86
    assert covered["rows"] < 85


def test_user_intervals_weigh_users_by_impressions() -> None:
    # 20 users of 100 rows ranked right, 20 of 2 rows ranked wrong: GAUC = 2,000 / 2,040.
    sizes = np.repeat([100, 2], 20)
    users = np.arange(40).repeat(sizes)
    labels = np.concatenate([np.arange(size) % 2 for size in sizes])
    scores = np.where(users < 20, labels, -labels)
    low, high = bootstrap_interval(labels, scores, users)["gauc"]
    assert 0.9 < low < 2_000 / 2_040 < high < 1


def test_resamples_that_lack_a_class_are_left_out() -> None:
    low, high = bootstrap_interval(np.array([1, 0]), np.array([2.0, 1.0]), resamples=50)["auc"]
    assert (low, high) == (1.0, 1.0)


def test_evaluate_reports_every_metric_of_split_and_segments() -> None:
    labels, logits = simulate(3_000)
    users = np.array([b"user-%d" % (row // 15) for row in range(3_000)], dtype=object)
    unseen = np.arange(3_000) % 15 > 9
    results = evaluate(labels, logits, users, {"unseen_users": unseen}, resamples=20, seed=3)
    probabilities = sigmoid(logits)
    assert results["rows"] == 3_000
    assert results["positives"] == labels.sum()
    assert results["auc"] == auc(labels, logits)
    assert results["gauc"] == gauc(labels, logits, users)
    assert results["log_loss"] == log_loss(labels, logits)
    assert results["normalized_entropy"] == normalized_entropy(labels, logits)
    assert results["expected_calibration_error"] == pytest.approx(
        expected_calibration_error(labels, probabilities)
    )
    assert results["calibration_ratio"] == pytest.approx(calibration_ratio(labels, probabilities))
    intervals = bootstrap_interval(labels, logits, users, resamples=20, seed=3)
    assert {name: tuple(ends) for name, ends in results["intervals"].items()} == intervals
    assert results["resampled"] == "users"

    alone = evaluate(labels[unseen], logits[unseen], users[unseen], resamples=20, seed=3)
    assert alone.pop("segments") == {}
    assert results["segments"] == {"unseen_users": alone}
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_evaluate_without_users_has_no_gauc() -> None:
    results = evaluate(*simulate(100), resamples=5)
    assert "gauc" not in results
    assert results["resampled"] == "rows"
    assert results["intervals"].keys() == {"auc", "log_loss"}


def test_undefined_numbers_are_none_in_json() -> None:
    labels, logits = simulate(200)
    segments = {"no_clicks": labels == 0, "clicks": labels == 1, "nobody": labels == 2}
    users = np.arange(200)
    results = evaluate(labels, logits, users, segments, resamples=5)
    json.dumps(results, allow_nan=False)
    no_clicks = results["segments"]["no_clicks"]
    assert no_clicks["positives"] == 0
    for name in ("auc", "gauc", "normalized_entropy", "calibration_ratio"):
        assert no_clicks[name] is None
    assert no_clicks["intervals"]["auc"] == [None, None]
    assert no_clicks["log_loss"] > 0
    assert results["segments"]["clicks"]["calibration_ratio"] < 1
    assert results["segments"]["nobody"] == {"rows": 0}
    # Every user has one row here, so none has both classes though the split has.
    assert results["gauc"] is None
    assert results["intervals"]["gauc"] == [None, None]
    assert results["auc"] is not None


def printed(results: dict[str, dict], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_report(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_report_has_a_line_for_each_split_and_segment() -> None:
    labels, logits = simulate(2_000)
    segments = {"unseen_users": np.arange(2_000) < 800, "[new] items": labels == 2}
    results = evaluate(labels, logits, np.arange(2_000) // 20, segments, resamples=20)
    lines = printed({"valid": results, "test": results}, width=120)[2:]
    assert [line[: line.index("  ")] for line in lines] == [
        "valid",
        "valid / unseen users",
        "valid / [new] items",
        "test",
        "test / unseen users",
        "test / [new] items",
    ]
    low, high = results["intervals"]["auc"]
    assert lines[0].split() == [
        "valid",
        "2,000",
        f"{results['auc']:.4f}",
        f"{low:.4f}–{high:.4f}",
        f"{results['gauc']:.4f}",
        f"{results['log_loss']:.4f}",
        f"{results['normalized_entropy']:.4f}",
        f"{results['expected_calibration_error']:.4f}",
        f"{results['calibration_ratio']:.4f}",
    ]
    assert lines[2].split()[-8:] == ["0", *"–––––––"]


def test_report_shows_every_digit_on_80_columns() -> None:
    labels, logits = simulate(2_000)
    segments = {"unseen_users": np.ones(2_000, bool)}
    results = evaluate(labels, logits, np.arange(2_000) // 20, segments, resamples=20)
    results["rows"] = 1_000_000_000
    wide, narrow = (" ".join(printed({"test": results}, width)).split() for width in (200, 80))
    assert sorted(wide) == sorted(narrow)


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        ([0, 1, 2], [0.1, 0.2, 0.3], r"labels must be 0 or 1, found .*2.* in row 2"),
        ([0.0, math.nan], [0.1, 0.2], r"labels must be 0 or 1, found .*nan.* in row 1"),
        ([0, 1], [0.1, math.nan], r"found NaN in row 1"),
        ([0, 1], [0.1, 0.2, 0.3], r"must both be \[N\], found \(2,\) and \(3,\)"),
        ([[0], [1]], [[0.1], [0.2]], r"must both be \[N\], found \(2, 1\) and \(2, 1\)"),
        ([], [], r"empty"),
    ],
)
@pytest.mark.parametrize(
    "metric",
    [
        auc,
        lambda labels, values: gauc(labels, values, np.zeros(len(labels), int)),
        log_loss,
        normalized_entropy,
        expected_calibration_error,
        calibration_ratio,
        bootstrap_interval,
        evaluate,
    ],
)
def test_bad_rows_are_refused(metric, labels: list, values: list, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        metric(np.array(labels), np.array(values))


def test_bad_arguments_are_refused() -> None:
    labels, logits = np.array([0, 1]), np.array([0.1, 3.0])
    with pytest.raises(ValueError, match=r"finite, found inf in row 1"):
        log_loss(labels, np.array([0.0, math.inf]))
    with pytest.raises(ValueError, match=r"in \[0, 1\], found 3.0 in row 1"):
        expected_calibration_error(labels, logits)
    with pytest.raises(ValueError, match="bins must be at least 1, found 0"):
        expected_calibration_error(labels, logits / 10, bins=0)
    with pytest.raises(ValueError, match="resamples must be at least 1, found 0"):
        bootstrap_interval(labels, logits, resamples=0)
    with pytest.raises(ValueError, match=r"users have shape \(3,\), the rows are 2"):
        gauc(labels, logits, np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="found float64"):
        gauc(labels, logits, np.array([1.0, math.nan]))
    with pytest.raises(ValueError, match="found NoneType, str"):
        gauc(labels, logits, np.array(["a", None], dtype=object))
    with pytest.raises(ValueError, match=r"segment 'cold' must be bool \(2,\), found int64 \(2,\)"):
        evaluate(labels, logits, segments={"cold": np.array([0, 1])}, resamples=1)


def test_metrics_do_not_import_tensorflow() -> None:
    script = "import sys, tfctr.metrics; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_an_evaluation_without_resamples_is_refused() -> None:
    with pytest.raises(ValueError, match="resamples must be at least 1, found 0"):
        evaluate(*simulate(20), resamples=0)


def test_sums_of_float32_are_of_float64() -> None:
    probabilities = np.full(300_001, 0.1, np.float32)
    labels = np.ones(300_001, np.int64)
    expected = float(np.float32(0.1))
    assert calibration_ratio(labels, probabilities) == pytest.approx(expected, rel=1e-12)
