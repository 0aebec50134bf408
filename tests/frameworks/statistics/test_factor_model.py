"""The factor model of grades: its steps by plain loops, and what it finds."""

import numpy as np

from tfctr.frameworks.statistics import factor_model
from tfctr.frameworks.statistics.factor_model import Factors, Sums

FACTORS = 2


def fitted(
    users: np.ndarray, items: np.ndarray, grades: np.ndarray, num_items: int, steps: int
) -> Factors:
    model = factor_model.initial(num_items, FACTORS, grades.mean(), grades.var())
    for _ in range(steps):
        sums = factor_model.expected(users, items, grades, model)
        weights, errors = factor_model.maximised(sums, model.center)
        model = factor_model.combined(
            num_items, sums.items, weights, sums.sums[:, 0], errors, grades.mean()
        )
    return model


def test_sums_are_those_of_a_loop_over_users_and_events() -> None:
    rng = np.random.default_rng(1)
    users = np.array([3, 3, 3, 7, 9, 9])
    items = np.array([5, 1, 2, 1, 5, 1])
    grades = np.array([1.0, 4, 2, 5, 3, 3])
    model = Factors(rng.normal(size=(8, 1 + FACTORS)), 0.7, np.zeros(1 + FACTORS))
    expected = {item: np.zeros((3, 3)) for item in (1, 2, 5)}
    graded = {item: np.zeros(3) for item in (1, 2, 5)}
    for user in (3, 7, 9):
        own = [n for n in range(6) if users[n] == user]
        precision, pull = np.eye(FACTORS), np.zeros(FACTORS)
        for n in own:
            mean, loading = model.weights[items[n], 0], model.weights[items[n], 1:]
            precision += np.outer(loading, loading) / model.noise
            pull += loading * (grades[n] - mean) / model.noise
        covariance = np.linalg.inv(precision)
        unit = np.r_[1, covariance @ pull]
        second = np.outer(unit, unit)
        second[1:, 1:] += covariance
        for n in own:
            expected[items[n]] += second
            graded[items[n]] += grades[n] * unit
    found = factor_model.expected(users, items, grades, model)
    assert found.items.tolist() == [1, 2, 5]
    lower = np.tril_indices(3)
    for item, sums in zip(found.items, found.sums, strict=True):
        squares = (grades[items == item] ** 2).sum()
        whole = np.r_[expected[item][lower], graded[item], squares]
        np.testing.assert_allclose(sums, whole, atol=1e-7)


def test_weights_solve_the_shrunk_normal_equations_of_their_item() -> None:
    rng = np.random.default_rng(2)
    units = np.c_[np.ones(40), rng.normal(size=(40, FACTORS))]
    grades = units @ [3.0, 1.0, -2.0] + rng.normal(size=40)
    lower = np.tril_indices(3)
    sums = np.r_[(units.T @ units)[lower], units.T @ grades, (grades**2).sum()]
    center = np.array([2.5, 0.1, 0.2])
    (found,), errors = factor_model.maximised(Sums(np.array([4]), sums[None]), center)
    prior = np.diag([factor_model.MEAN_PRIOR, *[factor_model.LOADING_PRIOR] * FACTORS])
    wanted = np.linalg.solve(units.T @ units + prior, units.T @ grades + prior @ center)
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_allclose(errors, ((grades - units @ wanted) ** 2).sum())


def test_it_finds_the_noise_and_expects_what_it_has_not_seen() -> None:
    rng = np.random.default_rng(3)
    tastes, loadings = rng.normal(size=(600, FACTORS)), rng.normal(size=(50, FACTORS))
    means = rng.normal(size=50)
    truth = means + tastes @ loadings.T
    users, items = np.nonzero(rng.random(truth.shape) < 0.4)
    grades = truth[users, items] + rng.normal(scale=0.5, size=len(users))
    model = fitted(users, items, grades, 51, steps=30)
    assert abs(model.noise - 0.25) < 0.01
    np.testing.assert_array_equal(model.weights[50], model.center)  # nobody graded this item

    weights = model.weights[:50]
    errors, plain = [], []
    for user in range(100):
        own = np.flatnonzero(users == user)
        v = weights[items[own], 1:]
        precision = np.eye(FACTORS) + v.T @ v / model.noise
        pull = v.T @ (grades[own] - weights[items[own], 0]) / model.noise
        others = np.setdiff1d(np.arange(50), items[own])
        expected = weights[others, 0] + weights[others, 1:] @ np.linalg.solve(precision, pull)
        errors += [*(expected - truth[user, others])]
        plain += [*(weights[others, 0] - truth[user, others])]
    assert np.std(errors) < 0.35
    assert np.std(plain) > 1
