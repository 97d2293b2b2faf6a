"""Log-space sums, and confidence sequences that must hold at every batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from bayespar.statistics import Interval, MeanConfidence, kl_divergence, log_normalise, log_sum_exp, total_variation

INF = math.inf


def test_log_sum_exp():
    logs = np.log([[0.1, 0.2, 0.3], [1e-300, 2e-300, 3e-300]])
    assert np.exp(log_sum_exp(logs)[0]) == pytest.approx(0.6, abs=1e-15)
    assert log_sum_exp(logs)[1] == pytest.approx(math.log(6e-300), rel=1e-15)
    assert log_sum_exp(np.array([[-1000.0, -1000.0]]))[0] == pytest.approx(-1000 + math.log(2), rel=1e-15)
    assert log_sum_exp(np.array([[-INF, 5.0], [-INF, -INF]])).tolist() == [5.0, -INF]
    assert float(log_sum_exp(np.array([-INF, 0.0]))) == 0.0  # without any batch axis


def test_log_normalise():
    logs = log_normalise(np.array([[-1000.0, -INF, -1000.0 + math.log(3)], [0.0, -INF, -INF]]))
    assert np.exp(logs) == pytest.approx(np.array([[0.25, 0, 0.75], [1, 0, 0]]), abs=1e-12)
    assert logs[0, 1] == -INF
    with pytest.raises(ValueError, match="no mass"):
        log_normalise(np.array([[0.0, 0.0], [-INF, -INF]]))


def test_divergences():
    p, q = np.array([[0.5, 0.5, 0.0]]), np.array([[0.25, 0.5, 0.25]])
    assert kl_divergence(p, q) == pytest.approx([0.5 * math.log(2)])
    assert kl_divergence(q, p).tolist() == [INF]
    assert kl_divergence(p, p).tolist() == [0.0]
    assert total_variation(p, q) == pytest.approx([0.25])


# --- confidence sequences ---------------------------------------------------------------------------------------


def run(draws: np.ndarray, low: float, high: float, alpha: float, batches: int) -> list[Interval]:
    sequence = MeanConfidence(low, high, alpha, plan=len(draws))
    return [sequence.update(batch) for batch in np.array_split(draws, batches)]


DRAWS = {
    "rare": (lambda rng, n: (rng.random(n) < 0.02).astype(float), 0.02, 0.0, 1.0),
    "coin": (lambda rng, n: 2.0 * (rng.random(n) < 0.5) - 1, 0.0, -1.0, 1.0),
    "narrow": (lambda rng, n: 3 + 0.01 * rng.random(n), 3.005, 0.0, 10.0),
    "skewed": (lambda rng, n: rng.beta(0.1, 0.4, n), 0.2, 0.0, 1.0),
}


@pytest.mark.parametrize("law", DRAWS)
def test_the_truth_stays_inside_at_every_batch(law):
    # 300 runs of a sequence with alpha = 0.1: more than `most` of them ever leaving the truth has probability < 1e-6.
    draw, mean, low, high = DRAWS[law]
    rng = np.random.default_rng(11)
    runs, alpha = 300, 0.1
    most = int(binom.isf(1e-6, runs, alpha))
    missed = 0
    for _ in range(runs):
        intervals = run(draw(rng, 400), low, high, alpha, batches=20)
        missed += not all(i.contains(mean) for i in intervals)
    assert missed <= most
    assert most < runs / 4  # so that an interval of half the width would be noticed


def test_intervals_are_narrow_enough_to_reject_a_mean_five_deviations_away():
    rng = np.random.default_rng(3)
    n = 4000
    for draw, mean, low, high in DRAWS.values():
        draws = draw(rng, n)
        interval = run(draws, low, high, 1e-2, batches=16)[-1]
        assert interval.mean == pytest.approx(draws.mean())
        assert interval.count == n
        assert not interval.contains(float(mean + 5 * max(draws.std(), 1e-3 * (high - low))))
        # Anytime validity and a bounded range cost less than a factor of three over the normal interval, plus the range
        # term that no empirical Bernstein bound can avoid.
        normal = 2.6 * draws.std() / math.sqrt(n)
        assert interval.half_width <= 3 * normal + 12 * (high - low) * math.log(2 / 1e-2) / n


@pytest.mark.parametrize("law", ["rare", "skewed"])
def test_a_mean_five_standard_errors_away_is_rejected(law):
    draw, mean, low, high = DRAWS[law]
    n = 20_000
    draws = draw(np.random.default_rng(5), n)
    middle, off = float(draws.mean()), 5 * float(draws.std()) / math.sqrt(n)
    interval = run(draws, low, high, 0.05, batches=64)[-1]
    assert interval.contains(mean)
    assert not interval.contains(middle + off)
    assert not interval.contains(middle - off)


def test_intervals_stay_within_the_bounds_and_start_with_them():
    sequence = MeanConfidence(-2, 3, 0.01, plan=10)
    assert (sequence.interval().low, sequence.interval().high) == (-2, 3)
    interval = sequence.update(np.full(5, 3.0))
    assert interval.high == 3.0
    assert interval.low >= -2.0
    assert sequence.update(np.array([])).count == 5


@pytest.mark.parametrize("bad", [[0.5, 1.5], [-0.1], [math.nan], [INF]])
def test_draws_outside_the_bounds_are_refused(bad):
    with pytest.raises(ValueError, match="outside"):
        MeanConfidence(0, 1, 0.01, plan=10).update(np.array(bad))


@pytest.mark.parametrize("arguments", [(1, 0, 0.1, 5), (0, 1, 0.0, 5), (0, 1, 1.0, 5), (0, 1, 0.1, 0)])
def test_bad_settings_are_refused(arguments):
    *bounds, plan = arguments
    with pytest.raises(ValueError, match="need low < high"):
        MeanConfidence(*bounds, plan=plan)
