"""What a scatter plot shows: the same means and scores that the ranking is made of."""

import math

import numpy as np
from populations import PLACE, measured, noise, population_of, task_of

from forecast.analysis.ranking.single_proxy import MEAN_TARGET, proxy_values, rank_candidates, target_scores
from forecast.config.schema import RankingConfig
from forecast.proxies.token_proxies import PROXIES

QUICK = RankingConfig(bootstraps=0, permutations=0)


def test_points_of_a_target_and_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    t, u = noise(rng, 4, 3), noise(rng, 4, 2)
    first, second = measured("t", [1, 2, 3, math.nan], [0.3] * 4), measured("exam", [5, 5, 6, 7.0], [0.4] * 4)
    population = population_of({"t": task_of({"x": t}), "u": task_of({"x": u})}, first, second)
    mean, own, _ = rank_candidates(population, QUICK).reports
    assert (mean.target, own.target) == (MEAN_TARGET, "t")
    proxy = PROXIES[PLACE["rank__entropy"]]
    np.testing.assert_allclose(proxy_values(population, own, proxy), t[:, :, PLACE[proxy.name]].mean(axis=1))
    both = (t[:, :, PLACE[proxy.name]].mean(axis=1) + u[:, :, PLACE[proxy.name]].mean(axis=1)) / 2
    np.testing.assert_allclose(proxy_values(population, mean, proxy), both)
    np.testing.assert_array_equal(target_scores(population, own)[0], first.values)
    values, errors = target_scores(population, mean)
    # One score is missing, so the mean is of z-scores: over the first three, and over all four.
    z, w = np.array([-1, 0, 1]) / np.sqrt(2 / 3), np.array([-0.75, -0.75, 0.25, 1.25]) / np.sqrt(0.6875)
    np.testing.assert_allclose(values, [*(z + w[:3]) / 2, w[3]])
    both = np.hypot(0.3 / np.sqrt(2 / 3), 0.4 / np.sqrt(0.6875)) / 2
    np.testing.assert_allclose(errors, [*[both] * 3, 0.4 / np.sqrt(0.6875)])


def test_a_target_that_was_left_out_is_not_in_the_mean() -> None:
    population = population_of(
        {"t": task_of({"x": noise(np.random.default_rng(0), 4, 3)})},
        measured("t", [1, 2, 3, 4.0]),
        measured("gone", [100, 0, 0, 0.0]),
        measured("exam", [3, 2, 3, 4.0]),
    )
    ranking = rank_candidates(population, QUICK.model_copy(update={"targets": {"gone": ("absent",)}}))
    assert ranking.reports[0].measured == ("t", "exam")
    np.testing.assert_allclose(target_scores(population, ranking.reports[0])[0], [2, 2, 3, 4])
    by_name = {s.candidate: s.measured for s in ranking.standings}
    assert [by_name[name] for name in population.candidates] == [2, 2, 3, 4], "the table shows the same"
