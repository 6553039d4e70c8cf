"""Comparison of two lakes: which candidates take part, proxies, order, rho, notes and failures."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lakes import Told, config_of, fill, solutions, tell
from scipy.stats import kendalltau, spearmanr
from tiny import save_model
from transformers import LlamaConfig

from forecast.analysis.parity.compare import ParityResult, compare
from forecast.analysis.parity.setups import Setups, two_setups
from forecast.config.schema import Config
from forecast.errors import NoDataError
from forecast.inputs.trajectories import Trajectory
from forecast.plan import Failure, Plan, Unit, make_plan
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.runs.records import save_failures
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse

TASKS = {
    "t": [*solutions("a", "b", "c"), *solutions("b", "c", expert="model")],
    "u": solutions("d", "e"),
}
ONE = {"u": TASKS["u"]}
FOUR = {name: f"fake://{i}" for i, name in enumerate(("p", "q", "r", "s"))}
Values = Callable[[str, Unit, Trajectory], Told]


def by_seed(role: str, unit: Unit, t: Trajectory) -> list[dict[str, float]]:
    """Tokens of one byte with values that depend on everything; 2 to 6 of them."""
    text = "/".join([unit.candidate.settings.source, t.task, t.expert, t.instance_id])
    rng = np.random.default_rng(list(text.encode()))
    n, level = int(rng.integers(2, 7)), float(unit.candidate.settings.source[-1])
    ids = rng.integers(0, 3, n)
    if role == "against":
        rng = np.random.default_rng(list((text + role).encode()))
    return [
        {
            "token_id": int(token),
            "logprob": -float(rng.exponential() + 2 - level / 4),
            "entropy": float(rng.exponential()),
            "rank": int(rng.integers(1, 9)),
            "ties": int(rng.integers(0, 2)),
            "top1_logprob": -float(rng.uniform(0, 1)),
        }
        for token in ids
    ]


def told(config: Config, values: Values, **options: Any) -> tuple[Setups, Plan, Plan]:
    """Two setups and their plans, with lakes that say `values`."""
    setups = two_setups(config, **options)
    plans = []
    for setup in (setups.base, setups.against):
        plan = make_plan(setup.config)
        tell(plan, lambda unit, t, role=setup.role: values(role, unit, t))  # type: ignore[misc]
        plans.append(plan)
    return setups, plans[0], plans[1]


def compared(config: Config, values: Values = by_seed, tolerance: float | None = None) -> ParityResult:
    setups, base, against = told(config, values)
    return compare(config, setups, base, against, tolerance)


def forget(plan: Plan, name: str) -> None:
    """As if a candidate had not been scored."""
    for unit in plan.units:
        if unit.candidate.name == name:
            Path(plan.path(unit)).unlink()


def means(plan: Plan) -> dict[tuple[str, str, str], float]:
    """The warehouse's proxies by candidate, task and proxy."""
    build_warehouse(plan)
    with open_warehouse(plan.config.output) as db:
        rows = db.execute(
            "SELECT candidate, task, proxy, value FROM task_proxies JOIN candidates USING (candidate_id)"
        ).fetchall()
    return {row[:3]: row[3] for row in rows}


def test_equal_lakes_have_no_difference(tmp_path: Path) -> None:
    parity = compared(config_of(tmp_path, ONE, FOUR), lambda _, *place: by_seed("base", *place), 0.0)
    assert all(d.largest == 0 and d.place is None for d in parity.pooled.differences)
    assert parity.pooled.ranks.differing == 0
    assert parity.effects is not None
    for proxy in parity.effects.proxies:
        assert (proxy.largest, proxy.median, proxy.swapped, proxy.tied_in_one) == (0, 0, 0, 0)
        assert (proxy.spearman, proxy.kendall) == (1, 1)
    assert [order.moved for order in parity.effects.orders] == [()]
    assert (parity.exceeded, parity.exit_code, parity.failed, parity.notes) == (False, 0, (), ())


def test_proxies_and_orders_are_those_of_the_warehouses(tmp_path: Path) -> None:
    config = config_of(tmp_path, TASKS, FOUR)
    setups, base, against = told(config, by_seed)
    effects = compare(config, setups, base, against).effects
    assert effects is not None
    a, b = means(base), means(against)
    assert (effects.instances, effects.pairs) == ({"t": 3, "u": 2}, 6)
    for proxy, found in zip(PROXIES, effects.proxies, strict=True):
        assert found.proxy == proxy.name
        cells = [(c, task, proxy.name) for c in FOUR for task in ("t", "u")]
        size = {cell: abs(b[cell] - a[cell]) for cell in cells}
        assert found.largest == pytest.approx(max(size.values()), rel=1e-12)
        assert found.median == pytest.approx(np.median(list(size.values())), rel=1e-12)
        at = (found.largest_at.candidate, found.largest_at.task, proxy.name)
        assert size[at] == pytest.approx(found.largest, rel=1e-12)
        assert (found.largest_at.base, found.largest_at.against) == pytest.approx((a[at], b[at]), rel=1e-12)
        relative = [size[cell] / abs(a[cell]) for cell in cells if a[cell] != 0]
        assert found.largest_relative == (pytest.approx(max(relative)) if relative else None)
        assert found.median_relative == (pytest.approx(np.median(relative)) if relative else None)

        orders = []
        for values in (a, b):
            columns = np.array([[values[c, task, proxy.name] for c in FOUR] for task in ("t", "u")])
            spread = columns.std(axis=1, keepdims=True)
            z = (columns - columns.mean(axis=1, keepdims=True)) / np.where(spread < 1e-9, 1, spread)
            orders.append(np.round(proxy.sign * z.mean(axis=0), 9))
        x, y = orders
        assert found.spearman == pytest.approx(spearmanr(x, y).statistic)
        assert found.kendall == pytest.approx(kendalltau(x, y).statistic)
        pairs = list(itertools.combinations(range(4), 2))
        assert found.swapped == sum((x[i] - x[j]) * (y[i] - y[j]) < 0 for i, j in pairs)
        assert found.tied_in_one == sum((x[i] == x[j]) != (y[i] == y[j]) for i, j in pairs)
    assert any(found.swapped for found in effects.proxies)


def levels(base: Sequence[float], against: Sequence[float]) -> Values:
    """Candidates p, q, r, s have these cross-entropies everywhere."""

    def values(role: str, unit: Unit, t: Trajectory) -> Told:
        level = (base if role == "base" else against)[list(FOUR).index(unit.candidate.name)]
        return [{"logprob": -level}]

    return values


def test_places_that_change_by_plain_cross_entropy(tmp_path: Path) -> None:
    parity = compared(config_of(tmp_path, ONE, FOUR), levels([1, 2, 3, 4], [1, 3, 2, 2]))
    assert parity.effects is not None
    (order,) = parity.effects.orders
    assert order.proxy == PLAIN_CROSS_ENTROPY
    places = [(s.candidate, s.base, s.against) for s in order.standings]
    assert places == [("p", 1, 1), ("q", 2, 4), ("r", 3, 2.5), ("s", 4, 2.5)]
    assert [s.candidate for s in order.moved] == ["q", "r", "s"]
    plain = next(p for p in parity.effects.proxies if p.proxy == PLAIN_CROSS_ENTROPY)
    assert (plain.swapped, plain.tied_in_one) == (2, 1)
    assert (plain.largest, plain.median) == (2, 1)
    assert (plain.largest_at.candidate, plain.largest_at.base, plain.largest_at.against) == ("s", 4, 2)
    assert (plain.largest_relative, plain.median_relative) == (0.5, (0.5 + 1 / 3) / 2)


def test_relative_to_zero_is_null(tmp_path: Path) -> None:
    parity = compared(config_of(tmp_path, ONE, FOUR), levels([0, 0, 0, 0], [1, 1, 1, 2]))
    assert parity.effects is not None
    plain = parity.effects.proxies[0]
    assert plain.proxy == PLAIN_CROSS_ENTROPY
    assert (plain.largest, plain.largest_relative, plain.median_relative) == (2, None, None)
    assert (plain.spearman, plain.kendall) == (None, None), "the base has no order"
    json.dumps(parity.as_record(), allow_nan=False)


def test_two_candidates_have_no_rho_but_may_swap(tmp_path: Path) -> None:
    two = {name: FOUR[name] for name in ("p", "q")}
    effects = compared(config_of(tmp_path, ONE, two), levels([1, 2], [2, 1])).effects
    assert effects is not None
    assert effects.pairs == 1
    assert (effects.proxies[0].spearman, effects.proxies[0].swapped) == (None, 1)


def test_instances_unread_in_one_setup_are_left_out_of_both(tmp_path: Path) -> None:
    def values(role: str, unit: Unit, t: Trajectory) -> Told:
        if role == "against" and unit.candidate.name == "q" and t.instance_id == "b" and t.expert == "model":
            return "too long here"
        return by_seed(role, unit, t)

    parity = compared(config_of(tmp_path / "x", TASKS, FOUR), values)
    assert parity.exit_code == 3
    (failure,) = parity.failed
    assert failure["setup"] == "against" and failure["candidate"] == "q" and failure["instance_id"] == "b"
    assert failure["error"].startswith("against: fake, bfloat16: ") and "too long here" in failure["error"]
    counts = {c.candidate: c.instances for c in parity.candidates}
    assert counts == {"p": 7, "q": 6, "r": 7, "s": 7}
    # The same as if nobody had been given that text.
    rest = {**TASKS, "t": [r for r in TASKS["t"] if (r["id"], r["expert"]) != ("b", "model")]}
    assert parity.effects == compared(config_of(tmp_path / "y", rest, FOUR)).effects


def test_a_candidate_that_failed_in_one_setup_is_reported(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONE, FOUR)
    setups, base, against = told(config, by_seed)
    forget(against, "r")
    save_failures(against, [Failure("candidate", "r", "candidate 'r': it broke")])
    forget(base, "s")
    parity = compare(config, setups, base, against)
    assert [c.candidate for c in parity.candidates] == ["p", "q"]
    assert parity.exit_code == 3
    errors = {entry["candidate"]: (entry["setup"], entry["error"]) for entry in parity.failed}
    assert errors["r"] == ("against", "against: fake, bfloat16: candidate 'r': it broke")
    assert errors["s"][0] == "base" and "not fully scored" in errors["s"][1]
    assert parity.effects is not None and parity.effects.pairs == 1


def test_failure_of_both_setups_is_listed_once(tmp_path: Path) -> None:
    config = config_of(tmp_path, {**TASKS, "gone": solutions("z")}, FOUR)
    (tmp_path / "solutions-gone.jsonl").unlink()
    parity = compared(config, lambda role, u, t: "long" if t.instance_id == "e" else by_seed(role, u, t))
    assert [entry["setup"] for entry in parity.failed] == ["both"] * 5
    assert sum("gone" in entry["error"] for entry in parity.failed) == 1


def test_different_tokens_fail_the_candidate(tmp_path: Path) -> None:
    def values(role: str, unit: Unit, t: Trajectory) -> Told:
        rows = by_seed(role, unit, t)
        if role == "against" and unit.candidate.name == "q" and t.instance_id == "e":
            rows[1]["token_id"] = 99
        return rows

    parity = compared(config_of(tmp_path, TASKS, FOUR), values)
    (failure,) = parity.failed
    assert (failure["setup"], failure["candidate"]) == ("both", "q")
    assert "task 'u', instance 'e'" in failure["error"] and "solution token 1" in failure["error"]
    assert "id 99" in failure["error"]
    assert [c.candidate for c in parity.candidates] == ["p", "r", "s"]
    assert parity.effects is not None and parity.effects.pairs == 3


def test_different_vocabularies_fail_the_candidate(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONE, FOUR)
    setups, base, against = told(config, by_seed)
    tell(against, lambda unit, t: by_seed("against", unit, t), vocab_size={"p": 1008})
    (failure,) = compare(config, setups, base, against).failed
    assert failure["candidate"] == "p" and "1000 entries" in failure["error"] and "1008" in failure["error"]


def test_no_common_candidate_raises(tmp_path: Path) -> None:
    config = config_of(tmp_path, TASKS, {"p": "fake://1", "q": "fake://2"})
    setups, base, against = told(config, by_seed)
    forget(base, "p")
    forget(against, "q")
    save_failures(against, [Failure("candidate", "q", "candidate 'q': no such engine here")])
    with pytest.raises(NoDataError) as error:
        compare(config, setups, base, against)
    assert "no candidate was read in both setups" in str(error.value)
    assert "no such engine here" in str(error.value)
    forget(base, "q")
    with pytest.raises(NoDataError, match="no such engine here"):
        compare(config, setups, base, against)


def test_no_text_in_common_leaves_tokens_without_proxies(tmp_path: Path) -> None:
    def values(role: str, unit: Unit, t: Trajectory) -> Told:
        alone = {"p": "d", "q": "e"}[unit.candidate.name]
        return by_seed(role, unit, t) if t.instance_id == alone else "no"

    parity = compared(config_of(tmp_path, {"u": TASKS["u"]}, {"p": "fake://1", "q": "fake://2"}), values)
    assert parity.effects is None
    assert [c.instances for c in parity.candidates] == [1, 1]
    assert "no proxies" in parity.notes[-1]
    assert parity.as_record()["effects"] is None


def test_two_names_of_one_model_are_counted_once(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONE, {**FOUR, "twin": FOUR["q"]})
    parity = compared(config)
    alone = compared(config_of(tmp_path / "alone", ONE, FOUR))
    assert parity.pooled == alone.pooled
    assert parity.notes == ("twin is the same model as q and is counted once among the tokens",)
    assert parity.effects is not None and parity.effects.pairs == 10


def test_tolerance_is_about_the_largest_logprob_difference(tmp_path: Path) -> None:
    values = levels([1, 2, 3, 4], [1, 2, 3.25, 4])
    parity = compared(config_of(tmp_path, ONE, FOUR), values, 0.249)
    assert (parity.exceeded, parity.exit_code) == (True, 4)
    assert parity.as_record()["tolerance"] == {"logprob": 0.249, "exceeded": True}
    for enough in (0.25, None):
        assert (replace(parity, tolerance=enough).exceeded, replace(parity, tolerance=enough).exit_code) == (
            False,
            0,
        )
    assert replace(parity, failed=({"setup": "both", "error": "x"},)).exit_code == 4, "whatever else failed"


CSV = "candidate,task,metric,value\np,exam,acc,0.9\nq,exam,acc,0.7\nr,exam,acc,0.5\ns,exam,acc,0.3\n"


def scores(folder: Path, text: str = CSV) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.csv").write_text(text)
    return {"measured_scores": [{"format": "csv", "path": str(folder / "scores.csv")}]}


def test_rho_with_imported_scores_under_both(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONE, FOUR, **scores(tmp_path))
    parity = compared(config, levels([1, 2, 3, 4], [1, 3, 2, 4]))
    assert parity.effects is not None
    (target,) = parity.effects.targets
    assert (target.target, target.n_candidates, target.proxies_of) == ("exam", 4, ("u",))
    rho = target.of(PLAIN_CROSS_ENTROPY)
    assert (rho.base, rho.against) == (1, 0.8)
    assert target.of("rank__uniform").base is None, "the same for all candidates"
    assert target.best_base == PLAIN_CROSS_ENTROPY
    widest = target.widest()
    assert widest is not None and abs(widest.against - widest.base) == max(  # type: ignore[operator]
        abs(r.against - r.base) for r in target.rhos if r.base is not None and r.against is not None
    )


def test_order_by_the_leading_proxy(tmp_path: Path) -> None:
    """Entropy leads and less of it is better: its first place is the candidate with the least."""

    def values(role: str, unit: Unit, t: Trajectory) -> Told:
        place = list(FOUR).index(unit.candidate.name)
        level = place if role == "base" else {0: 1, 1: 0}.get(place, place)
        return [{"entropy": 1 + level, "logprob": -1.0 - abs(place - 1.4)}]

    parity = compared(config_of(tmp_path, ONE, FOUR, **scores(tmp_path)), values)
    assert parity.effects is not None
    first, second = parity.effects.orders
    assert (first.proxy, second.proxy) == (PLAIN_CROSS_ENTROPY, "entropy__uniform")
    assert [(s.candidate, s.base, s.against) for s in second.standings] == [
        ("p", 1, 2), ("q", 2, 1), ("r", 3, 3), ("s", 4, 4),
    ]  # fmt: skip


def test_unusable_scores_are_listed_as_failures(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONE, FOUR, **scores(tmp_path, CSV + "p,other,acc,31%\n"))
    parity = compared(config)
    (failure,) = parity.failed
    assert failure["setup"] == "both" and "scores.csv:6" in failure["error"]
    assert parity.effects is not None and parity.effects.targets == ()


QUESTIONS = {
    "quiz": [{"id": f"q{i}", "prompt": f"{i}?", "options": ["yes", "no"], "answer": "yes"} for i in range(5)]
}


def test_rho_with_direct_evaluation_of_the_run(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONE, FOUR, choices=QUESTIONS)
    before = compared(config)
    assert before.effects is not None and before.effects.targets == ()
    assert "forecast run" in before.notes[0]

    run = make_plan(config)
    fill(run)
    build_warehouse(run)
    setups, base, against = told(config, by_seed, candidates=["p", "q", "s"])
    after = compare(config, setups, base, against).effects
    assert after is not None
    (target,) = after.targets
    assert (target.target, target.n_candidates) == ("quiz", 3)
    with open_warehouse(config.output) as db:
        accuracy = dict(db.execute("SELECT candidate, value FROM measured").fetchall())
    names = ["p", "q", "s"]
    rho = target.of(PLAIN_CROSS_ENTROPY)
    for plan, found in ((base, rho.base), (against, rho.against)):
        losses = means(plan)
        wanted = spearmanr(
            [-losses[n, "u", PLAIN_CROSS_ENTROPY] for n in names], [accuracy[n] for n in names]
        ).statistic
        assert found == pytest.approx(wanted)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three small random models."""
    found = {}
    for seed in range(3):
        folder = tmp_path_factory.mktemp(f"model{seed}")
        llama = LlamaConfig(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        )  # fmt: skip
        save_model(folder, llama, seed=seed)
        found[f"m{seed}"] = str(folder)
    return found


def test_real_models_in_two_dtypes(tiny: dict[str, str], tmp_path: Path) -> None:
    tasks = {"t": solutions(*"abcdef", text=" It is {} and 2 / 2 = 1, so 16 - 3 = 13 eggs are left.")}
    config = config_of(tmp_path, tasks, tiny, engine={"kind": "torch"})
    setups = two_setups(config)
    base, against = (make_plan(setup.config) for setup in (setups.base, setups.against))
    for plan in (base, against):
        fill(plan)
    parity = compare(config, setups, base, against)
    logprob = parity.pooled.of("logprob")
    assert 0 < logprob.median <= logprob.mean <= logprob.p99 <= logprob.largest < 1
    assert logprob.differing > 0.9 * parity.pooled.tokens
    assert parity.pooled.tied_base == 0 < parity.pooled.tied_against, "bfloat16 makes logits tie"
    assert parity.pooled.ranks.by_ties > 0
    assert [c.candidate for c in parity.candidates] == list(tiny)
    assert parity.effects is not None
    assert 0 < parity.effects.proxies[0].largest < 0.1
    assert parity.base["versions"].keys() == {"forecast", "torch", "transformers"}
    assert (parity.base["devices"], parity.against["engine"]["dtype"]) == (["cpu"], "bfloat16")

    # Batches of one change next to nothing in float32, and are kept apart from the setups above.
    again = two_setups(config, against=["batch_tokens=1,share_prefixes=false"], candidates=["m0"])
    plans = [make_plan(setup.config) for setup in (again.base, again.against)]
    assert (len(plans[0].done()), len(plans[1].done())) == (1, 0), "the base is there already"
    fill(plans[1])
    alone = compare(config, again, *plans)
    assert alone.pooled.of("logprob").largest < 1e-4
    assert alone.pooled.tokens == parity.pooled.tokens // 3
