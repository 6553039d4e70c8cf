"""The SQL of the 80 proxies against their formulas, token by token in plain Python."""

import math
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import config_of, fill, solutions, tell

from forecast.inputs.trajectories import Trajectory
from forecast.plan import Plan, Unit, make_plan
from forecast.proxies.token_proxies import METRICS, PLAIN_CROSS_ENTROPY, PROXIES, WEIGHTINGS
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse

Token = dict[str, float]
Key = tuple[str, str, str, str]  # candidate_id, task, expert, instance_id


def metrics_of(t: Token, vocab_size: int) -> dict[str, float]:
    """The ten metrics of a token, from section 2 of the method."""
    return {
        "cross_entropy": -t["logprob"],
        "top1_accuracy": 1.0 if t["rank"] <= 1 else 0.0,
        "top2_accuracy": 1.0 if t["rank"] <= 2 else 0.0,
        "top3_accuracy": 1.0 if t["rank"] <= 3 else 0.0,
        "top5_accuracy": 1.0 if t["rank"] <= 5 else 0.0,
        "entropy": t["entropy"] / math.log(vocab_size),
        "rank": float(t["rank"]),
        "reciprocal_rank": 1 / t["rank"],
        "margin": math.exp(t["top1_logprob"]) - math.exp(t["logprob"]),
        "wrong_confidence": math.exp(t["top1_logprob"]) if t["rank"] > 1 else 0.0,
    }


def weights_of(t: Token, vocab_size: int, frequency: float, mu: float, sigma: float) -> dict[str, float]:
    """The eight weights of a token."""
    p, h = math.exp(t["logprob"]), t["entropy"] / math.log(vocab_size)
    return {
        "uniform": 1.0,
        "probability": p,
        "disagreement": 1 - p,
        "entropy": h,
        "inverse_entropy": 1 / (h + 0.01),
        "frequency": frequency,
        "inverse_frequency": 1 / frequency,
        "gaussian_nll": math.exp(-((-t["logprob"] - mu) ** 2) / (2 * sigma**2)) if sigma > 0 else 1.0,
    }


def reference(instances: dict[Key, list[Token]], vocab_size: dict[str, int]) -> dict[Key, dict[str, float]]:
    """All 80 proxies of every instance."""
    pools: dict[tuple[str, str], Counter[float]] = {}
    for (candidate, task, _, _), tokens in instances.items():
        pools.setdefault((candidate, task), Counter()).update(t["token_id"] for t in tokens)
    result = {}
    for key, tokens in instances.items():
        pool, v = pools[key[:2]], vocab_size[key[0]]
        costs = [-t["logprob"] for t in tokens]
        mu = statistics.fmean(costs)
        sigma = 0.0 if len(set(costs)) == 1 else math.sqrt(statistics.fmean([(c - mu) ** 2 for c in costs]))
        m = [metrics_of(t, v) for t in tokens]
        w = [weights_of(t, v, pool[t["token_id"]] / pool.total(), mu, sigma) for t in tokens]
        result[key] = {
            f"{a.name}__{b.name}": _weighted_mean([x[b.name] for x in w], [x[a.name] for x in m])
            for a in METRICS
            for b in WEIGHTINGS
        }
    return result


def _weighted_mean(weights: list[float], values: list[float]) -> float:
    total = math.fsum(weights)
    if total == 0:
        return statistics.fmean(values)
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / total


def lake_instances(plan: Plan) -> dict[Key, list[Token]]:
    """The tokens of a plan's lake, read without the code under test."""
    rows = pl.concat(pl.read_parquet(plan.path(u)) for u in plan.units if u.shard.kind == "trajectories")
    keys = ("candidate_id", "task", "expert", "instance_id")
    found: dict[Key, list[Token]] = {}
    for row in rows.sort("position").iter_rows(named=True):
        found.setdefault(tuple(row[k] for k in keys), []).append(row)
    return found


def warehouse_instances(plan: Plan) -> dict[Key, dict[str, float]]:
    with open_warehouse(plan.config.output) as db:
        cursor = db.execute("FROM instance_proxies")
        names = [column[0] for column in cursor.description]
        return {row[:4]: dict(zip(names, row, strict=True)) for row in cursor.fetchall()}


def assert_equal_to_reference(plan: Plan, vocab_size: dict[str, int]) -> None:
    ids = {c.candidate_id: vocab_size[c.name] for c in plan.candidates}
    expected, found = reference(lake_instances(plan), ids), warehouse_instances(plan)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        for name, value in values.items():
            assert found[key][name] == pytest.approx(value, rel=1e-9, abs=1e-9), (key, name)


def random_token(rng: np.random.Generator, vocab_size: int) -> Token:
    """Any token that a model can produce, the extremes often."""
    top1 = float(rng.choice([0.0, -rng.exponential(0.5)]))
    is_top = rng.random() < 0.5
    rank = 1 if is_top else int(rng.choice([2, 3, 5, 6, int(rng.integers(2, vocab_size))]))
    return {
        "token_id": int(rng.integers(0, 12)),
        "n_bytes": int(rng.integers(0, 6)),
        "logprob": top1 if is_top else top1 - rng.exponential(3.0),
        "entropy": float(rng.choice([0.0, rng.random() * math.log(vocab_size)])),
        "rank": rank,
        "ties": int(rng.integers(0, 3)),
        "top1_logprob": top1,
    }


def test_there_are_80_and_their_names_are_the_columns() -> None:
    names = [p.name for p in PROXIES]
    assert len(names) == len(set(names)) == 80
    assert PLAIN_CROSS_ENTROPY in names
    assert {p.metric.name for p in PROXIES if p.learned} == {"entropy"}
    assert {p.metric.name for p in PROXIES if p.sign == -1} == {
        "cross_entropy",
        "rank",
        "margin",
        "wrong_confidence",
    }


def test_random_lake_of_several_tasks_experts_and_vocabularies(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    tasks = {
        "sums": [*solutions("a", "b", "c", "d"), *solutions("b", "c", expert="model")],
        "proofs": solutions("a", "z"),
    }
    sizes = {"small": 64, "large": 151_936}
    config = config_of(
        tmp_path, tasks, {name: f"fake://{size}" for name, size in sizes.items()}, shard_trajectories=2
    )
    plan = make_plan(config)

    def told(unit: Unit, _: Trajectory) -> list[Token]:
        return [random_token(rng, sizes[unit.candidate.name]) for _ in range(rng.integers(1, 40))]

    tell(plan, told, sizes)
    assert build_warehouse(plan) == []
    assert len(warehouse_instances(plan)) == 2 * (6 + 2)
    assert_equal_to_reference(plan, sizes)
    with open_warehouse(plan.config.output) as db:
        counts = db.execute(
            "SELECT sum(n_tokens), sum(n_bytes), sum(n_tokens * tie_share) FROM instance_proxies"
        ).fetchone()
    lake = [t for tokens in lake_instances(plan).values() for t in tokens]
    assert counts == (
        len(lake),
        sum(t["n_bytes"] for t in lake),
        pytest.approx(sum(t["ties"] > 0 for t in lake)),
    )


# On a grid of 1/64 nat: values nearer to each other than 1e-6 make the Gaussian's (ce - mu) / sigma an
# ill-conditioned number, in which double precision itself keeps fewer than nine digits.
_nats = st.integers(0, 1280).map(lambda n: n / 64)
_tokens = st.builds(
    lambda token_id, ahead, behind, rank, entropy: {
        "token_id": token_id,
        "logprob": -ahead - (behind if rank > 1 else 0),
        "top1_logprob": -ahead,
        "rank": rank,
        "entropy": entropy / 64,
    },
    token_id=st.integers(0, 3),
    ahead=_nats,
    behind=_nats,
    rank=st.sampled_from([1, 1, 2, 2, 5, 6, 499, 500]),
    entropy=st.integers(0, 64 * 6),
)
_instances = st.lists(
    st.one_of(
        st.lists(_tokens, min_size=1, max_size=8),
        st.builds(lambda token, n: [token] * n, _tokens, st.integers(1, 8)),  # sigma is 0
        st.lists(_tokens.map(lambda t: {**t, "entropy": 0.0}), min_size=1, max_size=4),
        st.lists(
            _tokens.map(lambda t: {**t, "logprob": 0.0, "top1_logprob": 0.0, "rank": 1}),
            min_size=1,
            max_size=4,
        ),
    ),
    min_size=1,
    max_size=12,
)


@given(instances=_instances)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
)
def test_any_lake(tmp_path_factory: pytest.TempPathFactory, instances: list[list[Token]]) -> None:
    names = [f"{i:02}" for i in range(len(instances))]
    config = config_of(tmp_path_factory.mktemp("lake"), {"t": solutions(*names)}, {"one": "fake://1"})
    plan = make_plan(config)
    tell(plan, lambda _, t: instances[int(t.instance_id)], {"one": 500})
    build_warehouse(plan)
    assert_equal_to_reference(plan, {"one": 500})


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """Proxies of instances at the edges of the definitions."""
    told: dict[str, list[Token]] = {
        "single": [{"logprob": -2.0, "rank": 4, "entropy": 3.0}],
        "sure": [{"logprob": -1.0, "rank": 2, "entropy": 0.0}, {"logprob": -3.0, "rank": 3, "entropy": 0.0}],
        "equal": [
            {"logprob": -0.1, "rank": 1, "entropy": 2.0, "token_id": 1},
            {"logprob": -0.1, "rank": 3, "entropy": 1.0, "token_id": 2},
            {"logprob": -0.1, "rank": 1, "entropy": 3.0, "token_id": 1},
        ],
        "long and equal": [{"logprob": -0.1, "rank": 1 + i % 9, "token_id": 3} for i in range(500)],
        "known": [
            {"logprob": 0.0, "top1_logprob": 0.0, "rank": 1, "entropy": 0.5, "token_id": 5},
            {"logprob": 0.0, "top1_logprob": 0.0, "rank": 1, "entropy": 0.0, "token_id": 6},
        ],
    }
    plan = make_plan(
        config_of(tmp_path_factory.mktemp("edges"), {"t": solutions(*told)}, {"one": "fake://1"})
    )
    tell(plan, lambda _, t: told[t.instance_id])
    build_warehouse(plan)
    return {key[3]: values for key, values in warehouse_instances(plan).items()}


def test_a_single_token_has_its_own_value_under_every_weighting(edges: dict[str, dict[str, float]]) -> None:
    expected = metrics_of({"logprob": -2.0, "rank": 4, "entropy": 3.0, "top1_logprob": -0.5}, 1000)
    for proxy in PROXIES:
        assert edges["single"][proxy.name] == pytest.approx(expected[proxy.metric.name], rel=1e-12), (
            proxy.name
        )


def test_weights_that_are_all_zero_count_as_uniform(edges: dict[str, dict[str, float]]) -> None:
    for metric in METRICS:
        assert edges["sure"][f"{metric.name}__entropy"] == edges["sure"][f"{metric.name}__uniform"]
        assert edges["known"][f"{metric.name}__disagreement"] == edges["known"][f"{metric.name}__uniform"]
    assert edges["sure"]["cross_entropy__uniform"] == 2.0
    assert edges["known"]["cross_entropy__disagreement"] == 0.0


def test_equal_cross_entropies_have_no_spread_and_count_as_uniform(
    edges: dict[str, dict[str, float]],
) -> None:
    for metric in METRICS:
        for name in ("equal", "long and equal"):
            assert edges[name][f"{metric.name}__gaussian_nll"] == edges[name][f"{metric.name}__uniform"], name
    assert edges["equal"]["rank__uniform"] == pytest.approx(5 / 3)


def test_inverse_frequency_is_the_macro_average_over_token_types(tmp_path: Path) -> None:
    """When a task's tokens are pooled, here into one instance."""
    rng = np.random.default_rng(3)
    tokens = [random_token(rng, 1000) for _ in range(200)]
    plan = make_plan(config_of(tmp_path, {"t": solutions("a")}, {"one": "fake://1"}))
    tell(plan, lambda *_: tokens)
    build_warehouse(plan)
    (found,) = warehouse_instances(plan).values()
    (lake,) = lake_instances(plan).values()
    by_type: dict[float, list[dict[str, float]]] = {}
    for token in lake:
        by_type.setdefault(token["token_id"], []).append(metrics_of(token, 1000))
    assert len(by_type) == 12
    for metric in METRICS:
        macro = statistics.fmean(statistics.fmean(m[metric.name] for m in own) for own in by_type.values())
        assert found[f"{metric.name}__inverse_frequency"] == pytest.approx(macro, rel=1e-9)


def test_a_better_model_moves_every_metric_the_way_it_says(tmp_path: Path) -> None:
    text = " First add them, then look at what is left over from {}; the answer follows."
    config = config_of(
        tmp_path, {"t": solutions(*"abcdefgh", text=text)}, {"weak": "fake://1", "strong": "fake://5"}
    )
    plan = make_plan(config)
    fill(plan)
    build_warehouse(plan)
    ids = {c.candidate_id: c.name for c in plan.candidates}
    found: dict[str, list[dict[str, float]]] = {"weak": [], "strong": []}
    for key, values in warehouse_instances(plan).items():
        found[ids[key[0]]].append(values)
    for proxy in PROXIES:
        if proxy.weighting.name == "uniform" and not proxy.learned:
            weak, strong = (
                statistics.fmean(row[proxy.name] for row in found[name]) for name in ("weak", "strong")
            )
            assert proxy.sign * (strong - weak) > 0, proxy.name
