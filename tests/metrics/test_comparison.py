"""Comparisons: against all resamples, against a plain loop, and how often they are right."""

import itertools
import math

import numpy as np
import pytest

from tfctr.metrics import (
    Difference,
    auc,
    bootstrap_interval,
    daily_difference,
    gauc,
    log_loss,
    paired_difference,
    t_interval,
)

METRICS = ("auc", "gauc", "log_loss")
# Three users of two or three rows, all with both classes: a resample of users never lacks one.
LABELS = np.array([1, 0, 1, 0, 0, 1, 0])
USERS = np.array(["a", "a", "b", "b", "b", "c", "c"])
FIRST = np.array([[2.0, 1.0, 0.5, 0.0, 1.0, 3.0, -1.0], [1.0, 1.5, 2.0, 0.0, -1.0, 0.5, 0.0]])
SECOND = np.array([[0.0, 1.0, 0.5, 0.5, 1.0, 1.0, 2.0]])


def measured(logits: np.ndarray, drawn: tuple[int, ...]) -> dict[str, float]:
    """The metrics of a resample: each drawn user's rows once more, as another user's."""
    rows = [np.flatnonzero(np.array(["a", "b", "c"])[user] == USERS) for user in drawn]
    copies = np.repeat(np.arange(len(drawn)), [len(of_user) for of_user in rows])
    these = np.concatenate(rows)
    return {
        "auc": auc(LABELS[these], logits[these]),
        "gauc": gauc(LABELS[these], logits[these], copies),
        "log_loss": log_loss(LABELS[these], logits[these]),
    }


def test_a_difference_is_of_every_resample_of_three_users_and_two_seeds() -> None:
    # 27 draws of users; of two seeds one is drawn, of one that one: 54 equally likely resamples.
    every: dict[str, list[float]] = {name: [] for name in METRICS}
    for drawn in itertools.product(range(3), repeat=3):
        other = measured(SECOND[0], drawn)
        for seed in (0, 1):
            for name, value in measured(FIRST[seed], drawn).items():
                every[name].append(value - other[name])
    found = paired_difference(LABELS, FIRST, SECOND, USERS, resamples=20_000)
    assert found.keys() == set(METRICS)
    for name in METRICS:
        plain = [measured(logits, (0, 1, 2))[name] for logits in (*FIRST, *SECOND)]
        assert found[name].mean == pytest.approx((plain[0] + plain[1]) / 2 - plain[2], abs=1e-12)
        values = np.round(every[name], 12)
        # The discrete quantile is one of the 54 values: the neighbours' range bounds it.
        for end, q in ((found[name].low, 0.025), (found[name].high, 0.975)):
            below, above = np.quantile(values, [max(q - 0.02, 0), min(q + 0.02, 1)])
            assert below - 1e-9 <= end <= above + 1e-9
        p = 2 * min(np.mean(values <= 0), np.mean(values >= 0))
        assert found[name].p == pytest.approx(min(p, 1), abs=0.02)


def test_gauc_by_hand() -> None:
    # User 1 is ranked right by both, user 2 by the first alone: of the draws {1,1}, {1,2}, {2,1},
    # {2,2} the first is ahead by 0, 1/2, 1/2, 1. At 0 in a quarter: p = 2/4.
    labels, users = np.array([1, 0, 1, 0]), np.array([1, 1, 2, 2])
    better, worse = np.array([[2.0, 1.0, 2.0, 1.0]]), np.array([[2.0, 1.0, 1.0, 2.0]])
    found = paired_difference(labels, better, worse, users, resamples=4_000)["gauc"]
    assert found[:3] == (0.5, 0.0, 1.0)
    assert found.p == pytest.approx(0.5, abs=0.05)


def test_resamples_are_those_of_a_plain_loop() -> None:
    generator = np.random.default_rng(1)
    labels, users = generator.integers(0, 2, 300), generator.integers(0, 30, 300)
    first = generator.normal(size=(3, 300)) + 0.3 * labels
    second = generator.normal(size=(2, 300)).round(1)
    generator, drawn = np.random.default_rng(7), []
    for _ in range(40):
        these = np.concatenate(
            [np.flatnonzero(users == u) for u in generator.integers(30, size=30)]
        )
        one, two = generator.integers(3, size=2), generator.integers(2, size=1)
        drawn.append(
            np.mean([auc(labels[these], first[seed, these]) for seed in one])
            - np.mean([auc(labels[these], second[seed, these]) for seed in two])
        )
    found = paired_difference(labels, first, second, users, resamples=40, seed=7)["auc"]
    np.testing.assert_allclose(found[1:3], np.quantile(drawn, [0.025, 0.975]), rtol=1e-12)


def test_a_model_is_no_better_than_itself() -> None:
    one = np.concatenate([FIRST[:1], FIRST[:1]])
    for found in paired_difference(LABELS, one, FIRST[:1], USERS, resamples=50).values():
        assert found == pytest.approx(Difference(0, 0, 0, 1), abs=1e-15)


def test_without_users_rows_are_drawn_and_there_is_no_gauc() -> None:
    found = paired_difference(LABELS, FIRST, SECOND, None, resamples=50)
    assert found.keys() == {"auc", "log_loss"}


def world(seed: int, ahead: float = 0.0) -> tuple[np.ndarray, ...]:
    """Labels, two seeds' logits each of two models with errors that are a user's, and users."""
    generator = np.random.default_rng(seed)
    users = np.arange(60).repeat(20)
    truth = generator.normal(size=1_200)
    labels = (generator.random(1_200) < 1 / (1 + np.exp(-2 * truth))).astype(int)

    def model() -> np.ndarray:
        of_user = 0.7 * generator.normal(size=60)[users]
        return truth + of_user + 0.3 * generator.normal(size=(2, 1_200))

    return labels, model() + ahead * truth, model(), users


@pytest.mark.slow
def test_equal_models_are_rarely_found_to_differ_and_others_mostly_are() -> None:
    def share(ahead: float) -> float:
        rejected = [
            paired_difference(*world(seed, ahead), resamples=200, seed=seed)["auc"].p < 0.05
            for seed in range(100)
        ]
        return float(np.mean(rejected))

    assert share(0) <= 0.12  # binomial(100, 0.05) is at most 12 but for one in a thousand
    assert share(1.0) > 0.8


def test_a_difference_by_users_is_wider_than_by_rows() -> None:
    labels, first, second, users = world(3)
    by_user, by_row = (
        paired_difference(labels, first, second, given, resamples=300)["auc"]
        for given in (users, None)
    )
    assert by_user.mean == by_row.mean
    assert by_user.high - by_user.low > 1.2 * (by_row.high - by_row.low)
    # And a pair's interval is narrower than those of two models that stand alone.
    alone = [bootstrap_interval(labels, logits, users)["auc"] for logits in (first[0], second[0])]
    assert by_user.high - by_user.low < sum(high - low for low, high in alone)


def test_the_spread_of_few_seeds_is_not_made_too_small() -> None:
    # All users alike and many: what varies is the seed. Two means of 3 seeds each.
    generator = np.random.default_rng(0)
    labels = np.tile([0, 1], 500)
    logits = np.where(labels, 1.0, -1.0) * np.array([0.8, 1.0, 1.3])[:, None]
    found = paired_difference(labels, logits, logits, np.zeros(1_000, int), resamples=4_000)
    losses = [log_loss(labels, row) for row in logits]
    draws = generator.choice(losses, size=(2, 100_000, 2)).mean(axis=2)
    expected = np.quantile(draws[0] - draws[1], 0.975)
    assert found["log_loss"].high == pytest.approx(expected, rel=0.05)
    assert np.var(draws[0]) == pytest.approx(np.var(losses, ddof=1) / 3, rel=0.02)


def test_blocks_are_of_consecutive_days() -> None:
    # Two weeks, one all 1 and one all 0. A block of a week is drawn: 14 starts, whose means are
    # 0/7, twice each of 1/7 to 6/7, and 7/7.
    series = np.repeat([1.0, 0.0], 7)[None]
    found = daily_difference(series, resamples=20_000)
    assert found.mean == 0.5
    assert found.days == (0.0, 1.0)

    assert all(math.isnan(end) for end in found.seeds)
    with_days_alone = daily_difference(series, block=1, resamples=20_000)
    assert np.ptp(with_days_alone.days) < 0.6


def test_days_that_hang_together_widen_the_interval_and_those_that_do_not_keep_it() -> None:
    def covered(carried: float, block: int) -> float:
        inside = 0
        for seed in range(200):
            noise = np.random.default_rng(seed).normal(size=228)
            for day in range(1, 228):
                noise[day] += carried * noise[day - 1]
            low, high = daily_difference(noise[None, 200:], block, resamples=200, seed=seed).days
            inside += low <= 0 <= high
        return inside / 200

    assert covered(0.0, 7) > 0.88
    assert covered(0.5, 7) > covered(0.5, 1) + 0.05


def test_the_interval_over_seeds_is_students_t() -> None:
    found = daily_difference(np.array([[1.0, np.nan, 1.0], [3.0, np.nan, 3.0]]))
    assert found.mean == 2
    assert found.seeds == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)
    assert found.days == (2, 2)
    assert t_interval([5.0, 5.0, 5.0]) == (5, 5)


def test_an_undefined_series_has_no_difference() -> None:
    found = daily_difference(np.full((2, 3), np.nan))
    assert math.isnan(found.mean)
    assert math.isnan(found.days[0])


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"first must be \[seeds, rows\], found shape \(7,\)"):
        paired_difference(LABELS, FIRST[0], SECOND, USERS)
    with pytest.raises(ValueError, match=r"second must be \[seeds, rows\], found shape \(0, 7\)"):
        paired_difference(LABELS, FIRST, SECOND[:0], USERS)
    with pytest.raises(ValueError, match=r"labels and logits must both be \[N\]"):
        paired_difference(LABELS, FIRST, SECOND[:, 1:], USERS)
    with pytest.raises(ValueError, match="resamples must be at least 1, found 0"):
        paired_difference(LABELS, FIRST, SECOND, USERS, resamples=0)
    with pytest.raises(ValueError, match=r"differences must be \[seeds, days\], found \(3,\)"):
        daily_difference(np.zeros(3))
    with pytest.raises(ValueError, match="at least 1, found 0 and 1000"):
        daily_difference(np.zeros((1, 3)), block=0)
