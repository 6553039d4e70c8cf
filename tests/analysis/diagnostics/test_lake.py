"""Diagnostics that read a run's lake: windows, ties, prompt forms, tokenizers, texts in a corpus."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from lakes import config_of, solutions, tell

from forecast.analysis.diagnostics.diagnose import DiagnoseOptions, DiagnoseResult, diagnose
from forecast.analysis.diagnostics.report import document
from forecast.analysis.diagnostics.run_data import load_material
from forecast.analysis.diagnostics.scoring_window import Windowed
from forecast.analysis.stats.rank_correlation import spearman
from forecast.config.schema import Config
from forecast.errors import InputError
from forecast.inputs.trajectories import Trajectory
from forecast.plan import Unit, make_plan
from forecast.proxies.token_proxies import PROXIES
from forecast.report.document import Table, Warning
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse
from forecast.warehouse.population import load_population

Told = Callable[[Unit, Trajectory], list[dict[str, float]]]
NAMES = ("a", "b", "c", "d")
SCORES = "candidate,task,metric,value\n" + "".join(
    f"{name},exam,acc,{i / 4}\n" for i, name in enumerate(NAMES)
)


def tokens_of(seed: int) -> Told:
    """Random tokens, the same for the same candidate and text in every run; position by position."""

    def told(unit: Unit, t: Trajectory) -> list[dict[str, float]]:
        key = [
            seed,
            *unit.candidate.name.encode(),
            *t.instance_id.encode(),
            *t.expert.encode(),
            *t.task.encode(),
        ]
        rng = np.random.default_rng(key)
        n = 3 + sum(t.instance_id.encode()) % 40
        return [
            {
                "token_id": int(rng.integers(0, 9)),
                "n_bytes": int(rng.integers(1, 5)),
                "logprob": -float(rng.exponential(2)),
                "entropy": float(rng.random() * 5),
                "rank": int(rng.integers(1, 9)),
                "ties": int(rng.integers(0, 2)),
                "top1_logprob": -0.1,
            }
            for _ in range(n)
        ]

    return told


def run(folder: Path, told: Told, tasks: dict[str, Any] | None = None, **settings: Any) -> Config:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.csv").write_text(SCORES)
    measured = [{"format": "csv", "path": str(folder / "scores.csv")}]
    sources = {name: f"fake://{i + 1}" for i, name in enumerate(NAMES)}
    tasks = tasks or {"t": [*solutions(*"xyz"), *solutions(*"xy", expert="model")], "u": solutions(*"vw")}
    config = config_of(folder, tasks, sources, **{"measured_scores": measured, **settings})
    plan = make_plan(config)
    tell(plan, told)
    build_warehouse(plan)
    return config


def look(config: Config, windows: tuple[int, ...] = (), **options: Any) -> DiagnoseResult:
    with open_warehouse(config.output) as db:
        return diagnose(db, config, DiagnoseOptions(windows=windows, **options))


def values(config: Config) -> np.ndarray:
    """[task, candidates, 80] of the warehouse."""
    with open_warehouse(config.output) as db:
        population = load_population(db)
    return np.stack([population.proxies[task].means() for task in sorted(population.proxies)])


def test_window_equals_a_run_scored_with_that_window(tmp_path: Path) -> None:
    everything = tokens_of(1)
    config = run(tmp_path / "all", everything)

    def told(unit: Unit, t: Trajectory) -> list[dict[str, float]]:
        return everything(unit, t)[-7:]

    short = run(tmp_path / "short", told)
    found = look(config, windows=(7, 10_000))
    effect, none = found.windows
    # The same orders as those of the run that has scored 7 tokens.
    full, cut = values(config), values(short)
    signs = np.array([proxy.sign for proxy in PROXIES])

    def features(means: np.ndarray) -> np.ndarray:
        z = means * signs
        return ((z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)).mean(axis=0)

    expected = spearman(features(full).T, features(cut).T)
    assert effect.median_rho == pytest.approx(float(np.median(expected)))
    place = [p.name for p in PROXIES].index("cross_entropy__uniform")
    assert effect.order_rho[0].proxy == "cross_entropy__uniform"
    assert effect.order_rho[0].rho.spearman == pytest.approx(float(expected[place]))
    with open_warehouse(config.output) as db:
        material = load_material(db, config)
    windowed = Windowed(7, material)
    for group, tokens in material.tokens():
        windowed.add(tokens, group.vocab_size)
    again = windowed.population()
    assert (np.stack([again.proxies[task].means() for task in "tu"]) == cut).all(), "to the bit"
    mine = look(short, windows=(10_000,), proxies=("cross_entropy__uniform",))
    assert effect.targets[0].part.spearman == pytest.approx(mine.instances_needed[0].rho)
    assert (effect.readings, effect.last_tokens) == (4 * 7, 7)
    lengths = [len(everything(u, t)) for u in make_plan(config).units for t in u.shard.trajectories]
    assert effect.shortened == sum(n > 7 for n in lengths) > 0
    assert none.order_rho == () and none.median_rho is None
    assert none.reason == "no candidate scored more than 10000 tokens of any solution"


def test_ties_and_min_k_leave_out_unscored_instances(tmp_path: Path) -> None:
    def told(unit: Unit, t: Trajectory) -> Any:
        if (unit.candidate.name, t.instance_id) == ("b", "y"):
            return "it does not fit"
        ties = 3 if t.instance_id == "y" else 0  # of the text that is left out
        return [{"logprob": -1.0 - i, "rank": 1, "ties": ties} for i in range(5)]

    config = run(tmp_path, told, {"t": solutions("x", "y")})
    found = look(config)
    assert {(t.candidate, t.tokens, t.tied_share) for t in found.ties} == {(name, 5, 0.0) for name in NAMES}
    assert {(m.instances, m.value, m.reason) for m in found.min_k.values} == {
        (1, -5.0, "all candidates have the same")
    }


def test_prompt_form_effect_of_paired_candidates(tmp_path: Path) -> None:
    config = run(tmp_path / "raw", tokens_of(1))
    none = look(config).prompt_forms
    assert none.models == 0 and none.reason is not None and "all are raw" in none.reason
    sources = [
        {"name": f"{n} {form}", "source": f"fake://{n}", "prompt_form": form}
        for n in (1, 2, 3)
        for form in ("raw", "chat")
    ]
    both = config.model_copy(update={"output": str(tmp_path / "both"), "measured_scores": ()})
    both = Config.model_validate({**both.model_dump(exclude_none=True), "candidates": sources})
    costs = {"raw": 1.0, "chat": 1.5}

    def told(unit: Unit, t: Trajectory) -> list[dict[str, float]]:
        number, form = unit.candidate.name.split()
        extra = 0.25 if form == "chat" and t.instance_id == "x" else 0.0
        return [{"logprob": -int(number) * costs[form] - extra}] * 3

    plan = make_plan(both)
    tell(plan, told)
    build_warehouse(plan)
    found = look(both, proxies=("cross_entropy__uniform",)).prompt_forms
    assert (found.models, found.reason) == (3, None)
    assert found.order_rho[0].rho.spearman == 1.0 and found.order_rho[0].rho.n == 3
    first = found.differences[0]
    assert (first.raw, first.chat, first.task, first.solutions) == ("1 raw", "1 chat", "t", 5)
    # 0.5 for all, and 0.25 more for two of the five solutions.
    deltas = np.array([0.75, 0.5, 0.5, 0.75, 0.5])
    reach = 2.7764451 * deltas.std(ddof=1) / 5**0.5
    assert first.difference == pytest.approx(0.6)
    assert (first.low, first.high) == (pytest.approx(0.6 - reach), pytest.approx(0.6 + reach))


def test_tokenizers_with_different_lengths_are_distinguished(tmp_path: Path) -> None:
    def told(unit: Unit, _: Trajectory) -> list[dict[str, float]]:
        # The same 12 bytes and nats in 3 tokens or in 6; candidate a is the best by the byte.
        i = NAMES.index(unit.candidate.name)
        n = 3 if i < 2 else 6
        return [{"n_bytes": 12 // n, "logprob": -(6.0 + i) / n, "rank": 2 + i}] * n

    found = look(run(tmp_path, told, {"t": solutions("x")}), proxies=("cross_entropy__uniform",)).tokenizers
    assert (found.readings, found.reason) == (2, None)
    assert [c.bytes_per_token for c in found.cuttings] == [4.0, 4.0, 2.0, 2.0]
    bits = np.array([6.0, 7.0, 8.0, 9.0]) / 12 / np.log(2)
    assert [c.bits_per_byte for c in found.cuttings] == pytest.approx(list(bits))
    # By the token c and d look best, by the byte they are the worst: scores rise from a to d.
    by_token = np.array([2.0, 7 / 3, 8 / 6, 1.5])
    (order,) = found.orders
    assert order.rho.spearman == pytest.approx(float(spearman(by_token, bits)))
    assert {(t.proxy, t.rho.spearman) for t in found.targets} == {
        ("bits_per_byte", -1.0),
        ("byte_cross_entropy__uniform", -1.0),
    }


def test_warehouse_without_byte_proxies_gives_a_reason(tmp_path: Path) -> None:
    import duckdb

    config = run(tmp_path, tokens_of(1))
    with duckdb.connect(f"{config.output}/warehouse.duckdb") as db:
        db.execute("DROP TABLE byte_task_proxies")
    found = look(config).tokenizers
    assert found.cuttings == () and found.reason is not None and "forecast aggregate" in found.reason


def test_contamination_and_order_without_matches(tmp_path: Path) -> None:
    long = " The quick brown fox jumps over the lazy dog {} and then it runs back home again."
    tasks = {"t": [*solutions("x", "y", text=long), *solutions("z")]}

    def told(unit: Unit, t: Trajectory) -> list[dict[str, float]]:
        i = NAMES.index(unit.candidate.name)
        return [{"logprob": -(5.0 - i if t.instance_id == "x" else 1.0 + i)}] * 2

    config = run(tmp_path / "run", told, tasks)
    corpus = tmp_path / "corpus.jsonl"
    leaked = "SEEN: the quick, brown fox jumps over the lazy dog x and then it runs back home again!"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("nothing", leaked, None)))
    found = look(config, corpus=(str(corpus),), proxies=("cross_entropy__uniform",))
    c = found.contamination
    assert (c.reason, c.files, c.documents, c.rows_without_text, found.failed) == (None, 1, 2, 1, ())
    tasks_found = {(t.task, t.part): (t.texts, t.too_short, t.matched) for t in c.tasks}
    assert tasks_found == {("t", "prompt"): (3, 3, 0), ("t", "solution"): (3, 1, 1)}
    (match,) = c.matches
    assert (match.instance_id, match.part, match.expert, match.share) == ("x", "solution", "human", 1.0)
    assert match.longest_run == 17 and match.excerpt.startswith("the quick brown fox")
    # x alone says that d is best; without it the order turns round.
    (without,) = c.without
    assert without.targets[0].target == "exam"
    assert without.targets[0].part.spearman == -1.0
    assert without.targets[0].whole.spearman == -1.0
    assert without.order_rho.spearman == 1.0
    frames = found.frames()
    assert frames["matches"]["longest_run"].to_list() == [17]
    assert frames["without_matches"].select("rho", "target", "rho_all").rows() == [(1.0, "exam", -1.0)]
    by_letter = look(config, corpus=(str(corpus),), ngram=50, unit="characters").contamination
    # The other text has the same words before and behind its own letter, but never 50 characters of them.
    assert [m.instance_id for m in by_letter.matches] == ["x"]


def test_unreadable_corpus_is_a_partial_failure(tmp_path: Path) -> None:
    config = run(tmp_path, tokens_of(1))
    found = look(config, corpus=(str(tmp_path / "nothing.jsonl"),))
    assert len(found.failed) == 1 and "no such file" in found.failed[0]["error"]
    assert found.contamination.reason is not None and found.ties


def test_missing_lake_file_is_named(tmp_path: Path) -> None:
    config = run(tmp_path, tokens_of(1))
    victim = next((Path(config.output) / "lake").rglob("*.parquet"))
    victim.unlink()
    with pytest.raises(InputError, match=victim.name):
        look(config)


def test_one_candidate_one_instance_one_token(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"t": solutions("x")}, {"a": "fake://1"})
    plan = make_plan(config)
    tell(plan, lambda *_: [{"n_bytes": 3, "logprob": -1.0}])
    build_warehouse(plan)
    found = look(config)
    record = json.loads(json.dumps(found.as_record(), allow_nan=False))
    assert record["ties"][0]["tokens"] == 1
    assert record["min_k"]["values"][0]["value"] == -1.0
    assert record["tokenizers"]["orders"][0]["rho"]["spearman"] is None
    assert record["instances_needed"][0]["reason"] == "nothing is measured"
    assert record["expert_overlap"][0]["reason"] is not None
    assert record["contamination"]["reason"] is not None
    assert record["warnings"] == []
    frames = found.frames()
    assert frames["experts"]["reason"].to_list() == ["it is the only expert: without it nothing is left"]
    assert frames["experts"].schema["favour"] == pl.Float64 and frames["shifts"].is_empty()
    assert frames["ties"]["top1_uncertain"].to_list() == [record["ties"][0]["topk_uncertain"]["1"]]
    assert frames["instances"].select("target", "half_width", "needed_0.1").row(0) == (None, None, None)
    warned = replace(found, warnings=("take care",), failed=({"task": "t", "error": "broken"},))
    (notes, failures) = document(warned).sections[-2:]
    assert (notes.heading, failures.parts) == ("Notes", (Warning("broken"),))
    headings = [section.heading for section in document(found).sections]
    assert len([heading for heading in headings if heading]) == 9


def test_document_shows_the_frames(tmp_path: Path) -> None:
    found = look(run(tmp_path, tokens_of(1)), windows=(7,), proxies=("cross_entropy__uniform",))
    tables = {}
    for section in document(found).sections:
        tables[section.heading] = [part for part in section.parts if isinstance(part, Table)]
    window = found.windows[0]
    (table,) = tables["Does the window matter?"]
    assert table.cells(wide=False)[0][:4] == [
        "7",
        str(window.shortened),
        str(window.readings),
        "cross_entropy__uniform",
    ]
    agreement = found.expert_agreement.pairs[0].rhos[0].rho
    row = found.frames()["agreement"].row(0, named=True)
    assert (row["first"], row["second"], row["instances_first"]) == ("human", "model", 2)
    assert (row["rho"], row["tau_b"]) == (agreement.spearman, agreement.kendall)
    _, shifts = tables["Does an expert favour its own family?"]
    human = shifts.frame.filter(pl.col("expert") == "human")
    assert human["candidate"].len() == 4 and human["place_with"].is_sorted()


def test_unknown_configured_expert_gives_a_warning(tmp_path: Path) -> None:
    config = run(tmp_path, tokens_of(1), experts={"modle": {"family": "Qwen"}, "model": {"family": "Llama"}})
    found = look(config)
    assert len(found.warnings) == 1 and "modle" in found.warnings[0] and "human, model" in found.warnings[0]
    assert {e.expert: (e.family, e.known_by) for e in found.expert_overlap} == {
        "human": (None, None),
        "model": ("Llama", "configuration"),
    }
