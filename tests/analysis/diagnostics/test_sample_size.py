"""The number of instances: against exhaustive draws, and the half-width against fresh samples."""

import itertools
import math

import numpy as np
import pytest
from populations import measured, population_of, proxies_of, task_of
from scipy import stats

from forecast.analysis.diagnostics.sample_size import instances_needed
from forecast.analysis.diagnostics.selection import Question, Selection
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY
from forecast.warehouse.population import Population


def selection(seed: int = 0) -> Selection:
    return Selection((PLAIN_CROSS_ENTROPY,), (), 0.95, seed)


def question(scores: np.ndarray, *tasks: str, target: str | None = "t") -> Question:
    return Question(target, tasks or ("t",), scores)


def needed(population: Population, asked: Question, draws: int = 200, seed: int = 0):
    return instances_needed(population, asked, PLAIN_CROSS_ENTROPY, selection(seed), draws)


def test_points_equal_means_over_all_subsets() -> None:
    rng = np.random.default_rng(4)
    quality, scores = rng.normal(size=(5, 6)), rng.normal(size=5)
    found = needed(population_of({"t": proxies_of(quality)}), question(scores), draws=4000)
    assert [p.n for p in found.points] == [1, 2, 3, 4]
    for point in found.points:
        every = [
            stats.spearmanr(quality[:, list(chosen)].mean(axis=1), scores).statistic
            for chosen in itertools.combinations(range(6), point.n)
        ]
        assert point.rho == pytest.approx(np.mean(every), abs=0.04)
        spread = np.std(every, ddof=0) / math.sqrt(1 - point.n / 6)
        assert point.sd == pytest.approx(spread, rel=0.1)
    pairs = [
        stats.spearmanr(quality[:, list(a)].mean(axis=1), quality[:, list(b)].mean(axis=1)).statistic
        for a in itertools.combinations(range(6), 2)
        for b in itertools.combinations(sorted(set(range(6)) - set(a)), 2)
    ]
    assert found.points[1].repeat == pytest.approx(np.mean(pairs), abs=0.04)
    assert found.points[3].repeat is None, "two draws of 4 from 6 share something"
    assert found.rho == pytest.approx(stats.spearmanr(quality.mean(axis=1), scores).statistic)


@pytest.mark.parametrize("noise", [3.0, 8.0])
def test_half_width_matches_fresh_samples(noise: float) -> None:
    """12 candidates, 80 instances: the claim from one sample against the spread over 400 fresh ones."""
    ability = np.linspace(-1, 1, 12)
    scores = ability + 0.3 * np.random.default_rng(9).normal(size=12)

    def sample(seed: int, n: int = 80) -> np.ndarray:
        return ability[:, None] + noise * np.random.default_rng(seed).normal(size=(12, n))

    fresh = {
        n: np.std([stats.spearmanr(sample(s, n).mean(axis=1), scores).statistic for s in range(400)])
        for n in (80, 320)
    }
    claims = [
        needed(population_of({"t": proxies_of(sample(s))}), question(scores), seed=s)
        for s in range(1000, 1012)
    ]
    z = stats.norm.ppf(0.975)
    widths = [claim.half_width for claim in claims]
    assert np.median(widths) == pytest.approx(z * fresh[80], rel=0.3)
    # Four times as many instances halve it.
    assert np.median(widths) / 2 == pytest.approx(z * fresh[320], rel=0.35)
    for claim in claims:
        for needed_for in claim.needed:
            told = math.ceil(80 * (claim.half_width / needed_for.half_width) ** 2 - 1e-9)
            assert needed_for.instances == (told if 4 * told >= 80 else None)


def test_no_number_of_instances_is_told_below_a_quarter_of_those_drawn_from() -> None:
    """Little noise: c / sqrt(n) of draws of 25 to 50 would go on to a handful, where ranks jump."""
    ability = np.linspace(-1, 1, 12)
    quality = ability[:, None] + 0.5 * np.random.default_rng(0).normal(size=(12, 100))
    found = needed(population_of({"t": proxies_of(quality)}), question(ability))
    assert found.half_width is not None
    wide = found.needed[0]
    assert (wide.half_width, wide.instances) == (0.1, None)
    assert wide.reason is not None and "at most 25" in wide.reason
    assert all(n.reason is None or n.instances is None for n in found.needed)


def test_same_seed_gives_the_same_result() -> None:
    population = population_of({"t": proxies_of(np.random.default_rng(0).normal(size=(4, 9)))})
    asked = question(np.arange(4.0))
    assert needed(population, asked, seed=1) == needed(population, asked, seed=1)
    assert needed(population, asked, seed=1) != needed(population, asked, seed=2)


def test_several_tasks_and_experts_draw_as_many_of_each() -> None:
    rng = np.random.default_rng(1)
    many = rng.normal(size=(4, 30, 80))
    tasks = {
        "t": task_of({"a": many, "b": many[:, :20]}, {"a": list(range(30)), "b": list(range(20))}),
        "u": proxies_of(rng.normal(size=(4, 8))),
    }
    found = needed(population_of(tasks), question(np.arange(4.0), "t", "u"))
    assert found.n == 8 and max(p.n for p in found.points) <= 6
    assert all(p.rho is not None for p in found.points)


def test_missing_half_width_has_a_reason() -> None:
    rng = np.random.default_rng(2)
    noise = population_of({"t": proxies_of(rng.normal(size=(4, 20)))})
    scores = np.arange(4.0)
    nothing = needed(noise, question(np.full(4, np.nan), target=None))
    assert (nothing.half_width, nothing.reason) == (None, "nothing is measured")
    assert nothing.points[0].rho is None and nothing.points[0].repeat is not None
    few = needed(noise, question(np.array([1.0, 2.0, np.nan, np.nan])))
    assert few.half_width is None and few.reason is not None and "2 candidates are measured" in few.reason
    equal = needed(noise, question(np.ones(4)))
    assert equal.half_width is None and equal.reason is not None and "equal" in equal.reason
    one = needed(population_of({"t": proxies_of(rng.normal(size=(4, 1)))}), question(scores))
    assert one.points == () and one.reason == "1 instances are too few to draw from"
    clear = population_of({"t": proxies_of(scores[:, None] + np.zeros((4, 20)))}, measured("t", [1, 2, 3, 4]))
    still = needed(clear, question(scores))
    assert still.rho == 1.0 and still.half_width is None
    assert still.reason is not None and "every draw of 1 instances gives the same" in still.reason
