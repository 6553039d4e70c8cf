"""A run's results as cells, and what drawing its instances again does to an interval."""

from dataclasses import replace

import numpy as np
import pytest
from populations import measured, noise, population_of, task_of

from forecast.analysis.ranking.feature_table_from_run import cells_of
from forecast.analysis.ranking.held_out import HeldOutResult, RankOptions, evaluate_held_out
from forecast.analysis.ranking.held_out_metrics import ScorerRow
from forecast.config.schema import RankingConfig
from forecast.errors import ConfigError, NoDataError
from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.population import Population

N = 10
SETTINGS = RankingConfig()


def population(instances: int = 20, scale: float = 0.3, seed: int = 0) -> Population:
    """Three tasks; every proxy is the same ability, lower is better, with noise of this scale by instance."""
    rng = np.random.default_rng(seed)
    ability = np.linspace(-1, 1, N)
    proxies = {
        name: task_of({"x": -ability[:, None, None] + scale * noise(rng, N, instances)})
        for name in ("a", "b", "c")
    }
    targets = [
        measured(name, 1 / (1 + np.exp(-ability + 0.2 * rng.normal(size=N)))) for name in ("a", "b", "c")
    ]
    return population_of(proxies, *targets)


def test_cells_are_the_means_of_the_proxies_in_their_own_direction() -> None:
    people = population()
    cells = cells_of(people, SETTINGS)
    table = cells.imported.table
    assert table.tasks == ("a", "b", "c") and table.candidates == people.candidates
    assert table.features == tuple(sorted(proxy.name for proxy in PROXIES))
    place = [proxy.name for proxy in PROXIES].index("rank__uniform")
    np.testing.assert_allclose(
        table.values[1, :, table.features.index("rank__uniform")],
        people.proxies["b"].means()[:, place],
        atol=1e-9,
    )
    np.testing.assert_allclose(table.scores[2], people.targets[2].values, atol=1e-9)


def test_what_is_known_of_sizes_is_a_covariate_and_what_is_not_stays_missing() -> None:
    people = replace(population(), parameters=(None, *range(1, N)))
    table = cells_of(people, SETTINGS).imported.table
    assert table.covariates == ("parameters", "plain cross-entropy")
    assert table.covariate_values is not None
    assert np.isnan(table.covariate_values[:, 0, 0]).all()
    np.testing.assert_array_equal(table.covariate_values[0, 1:, 0], range(1, N))


def test_a_model_under_two_names_counts_once_and_unknown_families_are_said() -> None:
    people = population()
    twins = replace(people, identities=(*people.identities[:-1], people.identities[0]))
    cells = cells_of(twins, SETTINGS)
    assert cells.imported.table.candidates == people.candidates[:-1]
    assert any("the same model as another candidate" in words for words in cells.imported.warnings)
    assert any("no family given" in words for words in cells.imported.warnings)


def test_chosen_proxies_and_mistakes() -> None:
    people = population()
    table = cells_of(people, SETTINGS, ["rank__uniform", "margin__uniform"]).imported.table
    assert table.features == ("margin__uniform", "rank__uniform")
    with pytest.raises(ConfigError, match="rank__uniform"):
        cells_of(people, SETTINGS, ["rank_uniform"])
    with pytest.raises(NoDataError, match="nothing to hold out"):
        cells_of(replace(people, targets=()), SETTINGS)


def univariate(people: Population) -> ScorerRow:
    cells = cells_of(people, SETTINGS, ["rank__uniform", "cross_entropy__uniform"])
    options = RankOptions(
        scorers=("univariate",), protocols=("leave-models-out",), permutations=0, bootstraps=300
    )
    found: HeldOutResult = evaluate_held_out(cells.imported, options, redraw=cells.redraw)
    return next(row for row in found.rows if row.scorer == "univariate")


def test_drawing_instances_again_gives_means_of_drawn_instances() -> None:
    """With one instance there are no drawings; with many their mean is the mean itself."""
    assert cells_of(population(instances=1), SETTINGS).redraw is None
    many = cells_of(population(), SETTINGS)
    assert many.redraw is not None
    drawn = np.stack(list(many.redraw(400, 0)))
    spread = 0.3 / np.sqrt(20)
    assert np.abs(drawn.mean(axis=0) - many.imported.table.values).max() < 6 * spread / np.sqrt(400)
    assert drawn.std(axis=0).mean() == pytest.approx(spread, rel=0.2)


def test_few_noisy_instances_widen_the_interval() -> None:
    """Of the same means: those of 4 noisy instances are less sure than those of 400."""
    few, many = population(4, 0.8), population(400, 0.8)
    same = {
        name: task_of(
            {
                "x": many.proxies[name].experts["x"].values
                - many.proxies[name].means()[:, None, :]
                + few.proxies[name].means()[:, None, :]
            }
        )
        for name in few.proxies
    }
    sure, unsure = univariate(replace(few, proxies=same)), univariate(few)
    assert sure.spearman == pytest.approx(unsure.spearman)
    assert None not in (sure.ci_low, sure.ci_high, unsure.ci_low, unsure.ci_high)
    assert unsure.ci_high - unsure.ci_low > 1.1 * (sure.ci_high - sure.ci_low)  # type: ignore[operator]
