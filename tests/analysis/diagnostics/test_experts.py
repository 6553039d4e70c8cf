"""Family overlap of experts, and agreement between them, on populations with known answers."""

from dataclasses import replace

import numpy as np
import pytest
from populations import PLACE, measured, population_of, task_of

from forecast.analysis.diagnostics.expert_agreement import expert_agreement
from forecast.analysis.diagnostics.family_bias import expert_overlap, family_of, without_expert
from forecast.analysis.diagnostics.selection import Selection, select
from forecast.analysis.stats.rank_correlation import spearman
from forecast.config.schema import ExpertConfig, RankingConfig
from forecast.errors import ConfigError
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.warehouse.population import Population

SIGNS = np.array([proxy.sign for proxy in PROXIES], float)
ABILITY = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def values(quality: np.ndarray) -> np.ndarray:
    """[candidates, instances, 80], of which every proxy says the same."""
    return quality[:, :, None] * SIGNS


def biased(bonus: float = 10.0) -> Population:
    """Expert `qwen-big` adds to what it says of the first two candidates, which are the weakest."""
    honest = np.repeat(ABILITY[:, None], 3, axis=1)
    lifted = honest + bonus * np.array([1.0, 1.0, 0, 0, 0, 0])[:, None]
    task = task_of({"human": values(honest), "qwen-big": values(lifted)})
    population = population_of({"t": task}, measured("t", list(ABILITY)))
    return replace(population, families=("Qwen", "Qwen", "Llama", "Llama", None, "OLMo"))


def selection(population: Population, *proxies: str) -> Selection:
    return select(population, RankingConfig(), proxies or (PLAIN_CROSS_ENTROPY,))


@pytest.mark.parametrize(
    ("expert", "configured", "answer"),
    [
        ("Qwen3-Next-80B", {}, ("Qwen3", "name")),
        ("qwen 2.5", {}, ("Qwen", "name")),
        ("human", {}, (None, None)),
        ("Kimi-K2.5", {"Kimi-K2.5": ExpertConfig(family="Moonshot")}, ("Moonshot", "configuration")),
        ("Qwen3-Next-80B", {"Qwen3-Next-80B": ExpertConfig()}, ("Qwen3", "name")),
        ("my-qwen", {}, (None, None)),
    ],
)
def test_family_of_expert(
    expert: str, configured: dict[str, ExpertConfig], answer: tuple[str | None, str | None]
) -> None:
    assert family_of(expert, configured, ["Qwen", "Qwen3", "Llama"]) == answer


def test_favour_of_a_biased_expert() -> None:
    population = biased()
    human, qwen = expert_overlap(population, selection(population), {})
    assert (human.expert, human.family, human.same_family) == ("human", None, ())
    assert (qwen.family, qwen.known_by, qwen.same_family) == ("Qwen", "name", ("c00", "c01"))
    (own,) = qwen.left_out
    # Half of what is added stays in the mean over both experts.
    mixed = ABILITY + np.array([5.0, 5.0, 0, 0, 0, 0])
    places = {s.candidate: (s.place_with, s.place_without) for s in own.shifts}
    for i, name in enumerate(population.candidates):
        with_it = 1 + (mixed > mixed[i]).sum() + ((mixed == mixed[i]).sum() - 1) / 2
        assert places[name] == (with_it, 6 - i)
    lost = np.array([b - a for a, b in places.values()])
    assert own.favour == pytest.approx(lost[:2].mean() - lost[2:].mean())
    assert own.favour is not None and own.favour > 4
    (target,) = own.targets
    assert target.target == "t"
    assert target.part.spearman == 1.0
    assert target.whole.spearman is not None and target.whole.spearman < 0.1
    # Without the honest expert it is worse, and there is no family to speak of.
    (other,) = human.left_out
    assert other.favour is None and other.reason is not None and "family" in other.reason
    assert other.targets[0].part.spearman is not None and other.targets[0].part.spearman < 0


def test_favour_of_an_unbiased_expert_is_zero() -> None:
    population = biased(bonus=0.0)
    _, qwen = expert_overlap(population, selection(population), {})
    (own,) = qwen.left_out
    assert own.favour == 0.0 and own.order_rho.spearman == 1.0


def test_favour_is_missing_where_all_candidates_are_of_the_family() -> None:
    population = replace(biased(), families=("Qwen",) * 6)
    own = expert_overlap(population, selection(population), {})[1].left_out[0]
    assert own.favour is None and own.reason is not None and "all candidates" in own.reason


def test_only_expert_gives_a_reason() -> None:
    task = task_of({"human": values(np.ones((3, 2)))})
    population = population_of({"t": task})
    (human,) = expert_overlap(population, selection(population), {})
    assert human.left_out == () and human.reason is not None and "only expert" in human.reason


def test_tasks_of_one_expert_alone_are_lost_without_it() -> None:
    honest = values(np.repeat(ABILITY[:, None], 2, axis=1))
    tasks = {"both": task_of({"a": honest, "b": honest}), "own": task_of({"b": -honest})}
    population = population_of(tasks, measured("own", list(ABILITY)), measured("both", list(ABILITY)))
    _, b = expert_overlap(population, selection(population), {})
    assert b.tasks_lost == ("own",)
    targets = {c.target: c for c in b.left_out[0].targets}
    assert targets["own"].whole.spearman == -1.0
    assert targets["own"].part.spearman is None and targets["own"].part.reason is not None
    assert targets["both"].part.spearman == 1.0
    assert list(without_expert(population, "b").proxies) == ["both"]


def test_agreement_uses_common_instances() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    task = task_of({"a": values(a), "b": values(b)}, {"a": [0, 1, 2, 3], "b": [2, 3, 4]})
    population = population_of({"t": task})
    (pair,) = expert_agreement(population, selection(population, "reciprocal_rank__uniform")).pairs
    assert (pair.first, pair.second, pair.n_instances, pair.same_instances) == ("a", "b", (2, 2), True)
    x, y = a[:, 2:].mean(axis=1), b[:, :2].mean(axis=1)
    ranks = [np.argsort(np.argsort(v)) for v in (x, y)]
    expected = 1 - 6 * ((ranks[0] - ranks[1]) ** 2).sum() / (5 * 24)
    everything = spearman(a.mean(axis=1), b.mean(axis=1))
    assert abs(expected - everything) > 0.1, "else this test could not tell the two apart"
    assert pair.rhos[0].proxy == "reciprocal_rank__uniform"
    assert pair.rhos[0].rho.spearman == pytest.approx(expected)
    assert pair.median_rho == pytest.approx(expected)  # every proxy says the same here


def test_agreement_without_common_instances_uses_all() -> None:
    quality = np.arange(4.0)[:, None] + np.zeros((4, 3))
    task = task_of({"a": values(quality[:, :1]), "b": values(-quality[:, :2])}, {"a": [0], "b": [1, 2]})
    (pair,) = expert_agreement(population := population_of({"t": task}), selection(population)).pairs
    assert (pair.n_instances, pair.same_instances) == ((1, 2), False)
    assert pair.rhos[0].rho.spearman == -1.0 and pair.rhos[0].rho.n == 4


def test_agreement_of_one_expert_gives_a_reason() -> None:
    population = population_of({"t": task_of({"human": values(np.ones((3, 1)))})})
    found = expert_agreement(population, selection(population))
    assert found.pairs == () and found.reason == "no task has solutions of two experts"


def test_unknown_proxy_raises_with_the_nearest_name() -> None:
    population = biased()
    with pytest.raises(ConfigError, match="did you mean 'rank__uniform'"):
        selection(population, "rank_uniform")
    assert PLACE["rank__uniform"] == [p.name for p in PROXIES].index("rank__uniform")
