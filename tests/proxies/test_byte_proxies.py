"""The SQL of the proxies over bytes against a reference that writes every byte out."""

import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import config_of, solutions, tell
from tokenizations import CUTS, draw, model, tokens

from forecast.inputs.trajectories import Trajectory
from forecast.plan import Plan, Unit, make_plan
from forecast.proxies.byte_proxies import BITS_PER_BYTE, BYTE_NAMES, byte_name
from forecast.proxies.token_proxies import METRICS, PROXIES
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse

Token = dict[str, float]
Key = tuple[str, str, str, str]  # candidate_id, task, expert, instance_id


def bytes_of(rows: list[Token]) -> list[Token]:
    """Every byte of an instance by itself, in order."""
    pieces: list[list[Token]] = [[]]
    for row in rows:
        pieces[-1].append(row)
        if row["n_bytes"] > 0:
            pieces.append([])
    without = pieces.pop()  # what follows the last token that has bytes
    if not pieces:
        return []
    pieces[-1] += without
    found = []
    for piece in pieces:
        n = int(sum(t["n_bytes"] for t in piece))
        byte = {
            "n": n,
            "ce": math.fsum(-t["logprob"] for t in piece) / n,
            "top1": math.exp(math.fsum(t["top1_logprob"] for t in piece) / n),
            "h": math.fsum(t["entropy"] for t in piece) / n / math.log(256),
            "rank": math.prod(int(t["rank"]) for t in piece),
            "id": next(t["token_id"] for t in piece if t["n_bytes"] > 0),
        }
        found += [byte] * n
    return found


def metrics_of(b: Token) -> dict[str, float]:
    n, p = int(b["n"]), math.exp(-b["ce"])
    return {
        "cross_entropy": b["ce"],
        **{f"top{k}_accuracy": 1.0 if b["rank"] <= k**n else 0.0 for k in (1, 2, 3, 5)},
        "entropy": b["h"],
        "rank": b["rank"] ** (1 / n),
        "reciprocal_rank": b["rank"] ** (-1 / n),
        "margin": b["top1"] - p,
        "wrong_confidence": b["top1"] if b["rank"] > 1 else 0.0,
    }


def weights_of(b: Token, frequency: float, mu: float, sigma: float) -> dict[str, float]:
    p = math.exp(-b["ce"])
    return {
        "uniform": 1.0,
        "probability": p,
        "disagreement": 1 - p,
        "entropy": b["h"],
        "inverse_entropy": 1 / (b["h"] + 0.01),
        "frequency": frequency,
        "inverse_frequency": 1 / frequency,
        "gaussian_nll": math.exp(-((b["ce"] - mu) ** 2) / (2 * sigma**2)) if sigma > 0 else 1.0,
    }


def reference(instances: dict[Key, list[Token]]) -> dict[Key, dict[str, float | None]]:
    """All of it for every instance, over the last bytes that every candidate has scored."""
    lengths: dict[tuple[str, str, str], list[int]] = {}
    for key, rows in instances.items():
        if n := int(sum(t["n_bytes"] for t in rows)):
            lengths.setdefault(key[1:], []).append(n)
    counted = {
        key: bytes_of(rows)[-min(lengths[key[1:]]) :] if any(t["n_bytes"] for t in rows) else []
        for key, rows in instances.items()
    }
    pools: dict[tuple[str, str], Counter[float]] = {}
    for key, found in counted.items():
        pools.setdefault(key[:2], Counter()).update(b["id"] for b in found)
    result: dict[Key, dict[str, float | None]] = {}
    for key, found in counted.items():
        if not found:
            result[key] = dict.fromkeys([BITS_PER_BYTE, *BYTE_NAMES])
            continue
        pool, costs = pools[key[:2]], [b["ce"] for b in found]
        mu = math.fsum(costs) / len(costs)
        equal = max(costs) - min(costs) < 1e-11
        sigma = 0.0 if equal else math.sqrt(math.fsum((c - mu) ** 2 for c in costs) / len(costs))
        m = [metrics_of(b) for b in found]
        w = [weights_of(b, pool[b["id"]] / pool.total(), mu, sigma) for b in found]
        result[key] = {BITS_PER_BYTE: mu / math.log(2), "n_bytes": len(found)}
        for proxy in PROXIES:
            values = [x[proxy.metric.name] for x in m]
            weights = [x[proxy.weighting.name] for x in w]
            total = math.fsum(weights) or len(values)
            if not any(weights):
                weights = [1.0] * len(values)
            result[key][byte_name(proxy)] = (
                math.fsum(a * b for a, b in zip(weights, values, strict=True)) / total
            )
    return result


def lake_instances(plan: Plan) -> dict[Key, list[Token]]:
    rows = pl.concat(pl.read_parquet(plan.path(u)) for u in plan.units if u.shard.kind == "trajectories")
    found: dict[Key, list[Token]] = {}
    for row in rows.sort("position").iter_rows(named=True):
        key = (row["candidate_id"], row["task"], row["expert"], row["instance_id"])
        found.setdefault(key, []).append(row)
    return found


def query(plan: Plan, sql: str) -> list[dict[str, Any]]:
    with open_warehouse(plan.config.output) as db:
        cursor = db.execute(sql)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def found_instances(plan: Plan) -> dict[Key, dict[str, Any]]:
    keys = ("candidate_id", "task", "expert", "instance_id")
    return {tuple(row[k] for k in keys): row for row in query(plan, "FROM byte_instance_proxies")}


def assert_equal_to_reference(plan: Plan) -> None:
    expected, found = reference(lake_instances(plan)), found_instances(plan)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        for name, value in values.items():
            wanted = value if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)
            assert found[key][name] == wanted, (key, name)


def random_token(rng: np.random.Generator) -> Token:
    top1 = float(rng.choice([0.0, -rng.exponential(0.5)]))
    is_top = rng.random() < 0.5
    return {
        "token_id": int(rng.integers(0, 12)),
        "n_bytes": int(rng.choice([0, 1, 1, 2, 3, 4, 7])),
        "logprob": top1 if is_top else top1 - rng.exponential(3.0),
        "entropy": float(rng.choice([0.0, rng.random() * 8])),
        "rank": 1 if is_top else int(rng.choice([2, 3, 4, 8, 9, 25, 27, 125, 243, 50_000])),
        "top1_logprob": top1,
    }


def test_the_names_are_none_of_the_80() -> None:
    names = [BITS_PER_BYTE, *BYTE_NAMES]
    assert len(set(names)) == 81
    assert not set(names) & {proxy.name for proxy in PROXIES}


def test_random_lake_of_several_tasks_experts_and_tokenizers(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    tasks = {
        "sums": [*solutions("a", "b", "c", "d"), *solutions("b", "c", expert="model")],
        "proofs": solutions("a", "z"),
    }
    candidates = {name: f"fake://{i + 1}" for i, name in enumerate(("x", "y", "z"))}
    plan = make_plan(config_of(tmp_path, tasks, candidates, shard_trajectories=2))
    tell(plan, lambda *_: [random_token(rng) for _ in range(rng.integers(1, 40))])
    assert build_warehouse(plan) == []
    assert_equal_to_reference(plan)
    # Whatever they had scored, the candidates are compared on the same bytes.
    same = query(
        plan,
        "SELECT DISTINCT task, expert, instance_id, n_bytes FROM byte_instance_proxies WHERE n_bytes > 0",
    )
    assert len(same) == 8


# On a grid, as in test_proxies.py: nearer values make the Gaussian's (ce - mu) / sigma ill-conditioned.
_nats = st.integers(0, 640).map(lambda n: n / 64)
_tokens = st.builds(
    lambda token_id, n_bytes, ahead, behind, rank, entropy: {
        "token_id": token_id,
        "n_bytes": n_bytes,
        "logprob": -ahead - (behind if rank > 1 else 0),
        "top1_logprob": -ahead,
        "rank": rank,
        "entropy": entropy / 64,
    },
    token_id=st.integers(0, 3),
    n_bytes=st.sampled_from([0, 1, 1, 2, 3, 5]),
    ahead=_nats,
    behind=_nats,
    rank=st.sampled_from([1, 1, 2, 5, 25, 125, 3125, 500]),
    entropy=st.integers(0, 64 * 6),
)
_rows = st.one_of(
    st.lists(_tokens, min_size=1, max_size=8),
    st.builds(lambda token, n: [token] * n, _tokens, st.integers(1, 8)),  # sigma is 0
    st.lists(_tokens.map(lambda t: {**t, "entropy": 0.0}), min_size=1, max_size=4),
    st.lists(_tokens.map(lambda t: {**t, "n_bytes": 0}), min_size=1, max_size=3),
)


@given(instances=st.lists(st.tuples(_rows, _rows), min_size=1, max_size=8))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_any_lake(
    tmp_path_factory: pytest.TempPathFactory, instances: list[tuple[list[Token], list[Token]]]
) -> None:
    names = [f"{i:02}" for i in range(len(instances))]
    candidates = {"0": "fake://1", "1": "fake://2"}
    plan = make_plan(config_of(tmp_path_factory.mktemp("lake"), {"t": solutions(*names)}, candidates))
    tell(plan, lambda unit, t: instances[int(t.instance_id)][int(unit.candidate.name)])
    build_warehouse(plan)
    assert_equal_to_reference(plan)


# --- small cases by hand


def one_instance(folder: Path, rows: list[Token], **candidates: list[Token]) -> dict[str, dict[str, Any]]:
    told = {"it": rows, **candidates}
    sources = {name: f"fake://{i + 1}" for i, name in enumerate(told)}
    plan = make_plan(config_of(folder, {"t": solutions("1")}, sources))
    tell(plan, lambda unit, _: told[unit.candidate.name])
    build_warehouse(plan)
    names = {c.candidate_id: c.name for c in plan.candidates}
    return {names[key[0]]: row for key, row in found_instances(plan).items()}


def test_a_word_of_four_bytes_and_one_of_one(tmp_path: Path) -> None:
    rows = [
        {"token_id": 1, "n_bytes": 4, "logprob": -2.0, "top1_logprob": -1.0, "rank": 81, "entropy": 2.0},
        {"token_id": 2, "n_bytes": 1, "logprob": -0.5, "top1_logprob": -0.5, "rank": 1, "entropy": 1.0},
    ]
    (row,) = one_instance(tmp_path, rows).values()
    assert (row["n_tokens"], row["n_bytes"]) == (2, 5)
    assert row["bits_per_byte"] == pytest.approx(2.5 / 5 / math.log(2), rel=1e-14)
    expected = {
        "cross_entropy": 2.5 / 5,
        "top1_accuracy": 1 / 5,
        "top2_accuracy": 1 / 5,
        "top3_accuracy": 1.0,  # 81 = 3^4
        "entropy": 3.0 / 5 / math.log(256),
        "rank": (4 * 3 + 1) / 5,
        "reciprocal_rank": (4 / 3 + 1) / 5,
        "margin": 4 * (math.exp(-0.25) - math.exp(-0.5)) / 5,
        "wrong_confidence": 4 * math.exp(-0.25) / 5,
    }
    for name, value in expected.items():
        assert row[f"byte_{name}__uniform"] == pytest.approx(value, rel=1e-12), name
    p = math.exp(-0.5)  # of every byte of both
    assert row["byte_top1_accuracy__probability"] == pytest.approx(p / (5 * p), rel=1e-12)
    assert row["byte_top1_accuracy__frequency"] == pytest.approx(0.2 / (4 * 0.8 + 0.2), rel=1e-12)
    assert row["byte_top1_accuracy__inverse_frequency"] == pytest.approx(
        0.5, rel=1e-12
    )  # a mean of two types
    assert row["byte_top1_accuracy__gaussian_nll"] == pytest.approx(0.2, rel=1e-12)  # all cost the same


def test_a_token_that_straddles_the_common_beginning_counts_by_its_share(tmp_path: Path) -> None:
    long = [
        {"n_bytes": 2, "logprob": -9.0, "token_id": 1},
        {"n_bytes": 4, "logprob": -4.0, "token_id": 2},
        {"n_bytes": 1, "logprob": -3.0, "token_id": 3},
    ]
    found = one_instance(tmp_path, long, short=[{"n_bytes": 3, "logprob": -6.0, "token_id": 4}])
    assert (found["it"]["n_tokens"], found["it"]["n_bytes"]) == (2, 3)
    assert found["it"]["byte_cross_entropy__uniform"] == pytest.approx((2 * 1.0 + 3.0) / 3, rel=1e-12)
    assert found["it"]["byte_cross_entropy__frequency"] == pytest.approx((4 * 1.0 + 3.0) / 5, rel=1e-12)
    assert found["short"]["byte_cross_entropy__uniform"] == pytest.approx(2.0, rel=1e-12)


def test_a_last_token_that_is_longer_than_what_all_have_scored(tmp_path: Path) -> None:
    rows = [{"n_bytes": 2, "logprob": -9.0}, {"n_bytes": 7, "logprob": -3.5}]
    found = one_instance(tmp_path, rows, short=[{"n_bytes": 3, "logprob": -6.0}])
    assert (found["it"]["n_tokens"], found["it"]["n_bytes"]) == (1, 3)
    assert found["it"]["byte_cross_entropy__uniform"] == pytest.approx(0.5, rel=1e-12)


def test_the_order_of_candidates_does_not_matter_for_the_common_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    told = {name: [random_token(rng) for _ in range(20)] for name in ("1", "2", "3")}
    found = []
    for order in (["1", "2", "3"], ["3", "1", "2"]):
        folder = tmp_path / "".join(order)
        plan = make_plan(config_of(folder, {"t": solutions("1")}, {n: f"fake://{n}" for n in order}))
        tell(plan, lambda unit, _: told[unit.candidate.name])
        build_warehouse(plan)
        found.append(query(plan, "FROM byte_task_proxies"))
    assert found[0] == found[1]  # to the bit


def test_without_bytes_there_is_no_number(tmp_path: Path) -> None:
    rows = {
        "it": [{"n_bytes": 2, "logprob": -1.0}],
        "none": [{"n_bytes": 0, "logprob": -1.0}, {"n_bytes": 0}],
    }
    plan = make_plan(config_of(tmp_path, {"t": solutions("1", "2")}, {"it": "fake://1", "none": "fake://2"}))
    tell(plan, lambda unit, t: rows[unit.candidate.name if t.instance_id == "2" else "it"])
    build_warehouse(plan)
    names = {c.candidate_id: c.name for c in plan.candidates}
    values = {
        (names[row["candidate_id"]], row["instance_id"]): row["bits_per_byte"]
        for row in query(plan, "FROM byte_instance_proxies")
    }
    half = pytest.approx(0.5 / math.log(2))
    assert values == {("it", "1"): half, ("it", "2"): half, ("none", "1"): half, ("none", "2"): None}
    for name in ("byte_expert_proxies", "byte_task_proxies"):
        nulls = query(
            plan, f"SELECT candidate_id, count(value) AS n, min(n_instances) AS i FROM {name} GROUP BY ALL"
        )
        # Not the mean of what there is: that would be over another text.
        assert {(names[row["candidate_id"]], row["n"], row["i"]) for row in nulls} == {
            ("it", 81, 2),
            ("none", 0, 2),
        }
    pooled = query(plan, "FROM bits_per_byte ORDER BY candidate_id")
    assert {(names[row["candidate_id"]], row["bits_per_byte"] is None) for row in pooled} == {
        ("it", False),
        ("none", True),
    }


def test_bits_per_byte_are_all_nats_over_all_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    plan = make_plan(config_of(tmp_path, {"t": solutions(*"abc")}, {"it": "fake://1"}))
    tell(plan, lambda *_: [{**random_token(rng), "n_bytes": int(rng.integers(1, 5))} for _ in range(9)])
    build_warehouse(plan)
    rows = pl.concat(pl.read_parquet(plan.path(u)) for u in plan.units)
    expected = {
        instance: (-math.fsum(own["logprob"].to_list()), int(own["n_bytes"].sum()))
        for (instance,), own in rows.group_by("instance_id")
    }
    for key, row in found_instances(plan).items():
        nats, size = expected[key[3]]
        assert row["bits_per_byte"] == pytest.approx(nats / size / math.log(2), rel=1e-13)
    (pooled,) = query(plan, "FROM bits_per_byte")
    total = sum(nats for nats, _ in expected.values()), sum(size for _, size in expected.values())
    assert (pooled["nats"], pooled["n_bytes"]) == (pytest.approx(total[0], rel=1e-13), total[1])
    assert pooled["bits_per_byte"] == pytest.approx(total[0] / total[1] / math.log(2), rel=1e-13)


# --- how much tokenizers matter


def spreads(plan: Plan, table: str) -> dict[str, float]:
    """Of each proxy over the candidates: (highest - lowest) / mean."""
    values: dict[str, list[float]] = {}
    for row in query(plan, f"SELECT proxy, value FROM {table}"):
        values.setdefault(row["proxy"], []).append(row["value"])
    return {name: (max(v) - min(v)) / statistics.fmean(v) for name, v in values.items()}


def test_one_model_under_four_tokenizers(tmp_path: Path) -> None:
    """The same probabilities for every text, cut in pieces of 1, 2, 1 and 3, and 3 letters."""
    rng, logp = np.random.default_rng(1), model(0.3)
    texts = {f"i{k}": draw(logp, 60, rng) for k in range(24)}
    sources = {name: f"fake://{i + 1}" for i, name in enumerate(CUTS)}
    plan = make_plan(config_of(tmp_path, {"t": solutions(*texts)}, sources))

    def told(unit: Unit, t: Trajectory) -> list[Token]:
        return tokens(logp, texts[t.instance_id], CUTS[unit.candidate.name])

    tell(plan, told, dict.fromkeys(CUTS, 300))
    build_warehouse(plan)
    by_token, by_byte = spreads(plan, "task_proxies"), spreads(plan, "byte_task_proxies")
    print("spread over four tokenizers: of the metric over tokens, over bytes (medians over the weightings)")
    for metric in METRICS:
        own = [p for p in PROXIES if p.metric == metric]
        over_tokens = statistics.median(by_token[p.name] for p in own)
        over_bytes = statistics.median(by_byte[byte_name(p)] for p in own)
        print(f"{metric.name:18} {over_tokens:5.2f} {over_bytes:5.2f}")
    # One model, one text, one probability: bits per byte cannot tell the tokenizers apart ...
    assert by_byte[BITS_PER_BYTE] < 1e-12
    assert by_byte["byte_cross_entropy__uniform"] < 1e-12
    # ... and every mean over tokens does, three letters a token costing three times as much.
    assert by_token["cross_entropy__uniform"] == pytest.approx(1.0, abs=0.01)
    assert min(by_token[p.name] for p in PROXIES if p.weighting.name == "uniform") > 0.3
    medians = [statistics.median(found.values()) for found in (by_token, by_byte)]
    assert medians[0] > 0.7
    assert medians[1] < 0.3 * medians[0]
    for name in ("cross_entropy", "entropy", "rank", "top3_accuracy", "top5_accuracy"):
        own = [p for p in PROXIES if p.metric.name == name]
        assert statistics.median(by_byte[byte_name(p)] for p in own) < 0.2
    # A token is the first choice only if all of it is: spreading it over bytes does not change that.
    assert by_byte["byte_top1_accuracy__uniform"] > 1
