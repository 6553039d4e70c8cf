"""The published table of 148 models: reading it, and forecasts for families that no fit has seen."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from forecast.analysis.baselines.held_out import MEAN, METHODS, HeldOutRow, family_folds, held_out_table
from forecast.analysis.baselines.report import document, evaluate_benchmarks
from forecast.analysis.baselines.size import size_agreement
from forecast.errors import ConfigError, InputError
from forecast.inputs.published.observational_scaling import ScoreTable, is_score_table, read_score_table
from forecast.report.document import Paragraph, Table

PATH = Path(__file__).parents[3] / "configs" / "data" / "obsscaling_base_llm_benchmark_eval.csv"


@pytest.fixture(scope="module")
def published() -> ScoreTable:
    return read_score_table(str(PATH))


@pytest.fixture(scope="module")
def fast_rows(published: ScoreTable) -> dict[tuple[str, str], HeldOutRow]:
    """All benchmarks, all methods but matrix completion."""
    methods = [name for name in METHODS if not name.startswith("matrix")]
    rows = held_out_table(published, methods=methods, folds=5)
    return {(row.target, row.method): row for row in rows}


def test_the_table_is_what_it_is_said_to_be(published: ScoreTable) -> None:
    assert published.scores.shape == (148, 8)
    assert len(set(published.families)) == 47
    assert np.isnan(published.flops).sum() == 25
    np.testing.assert_allclose(6 * published.parameters * published.tokens, published.flops, rtol=1e-12)


def test_flops_and_mmlu_agree_as_published(published: ScoreTable) -> None:
    mmlu = published.scores[:, published.benchmarks.index("MMLU")]
    found = size_agreement("training FLOPs", published.flops, mmlu)
    assert found.spearman == pytest.approx(0.854, abs=5e-4)
    assert (found.n_models, found.n_unknown) == (123, 25)


def test_other_benchmarks_beat_compute_on_families_not_seen(
    published: ScoreTable, fast_rows: dict[tuple[str, str], HeldOutRow]
) -> None:
    assert len(fast_rows) == 8 * 5
    for target in published.benchmarks:
        by_components = fast_rows[target, "observational, 3 components"]
        by_flops = fast_rows[target, "training FLOPs"]
        mean = fast_rows[target, MEAN]
        assert by_components.n_models == by_flops.n_models, "on the same models"
        assert by_components.reason is None
        assert by_components.rmse is not None and by_flops.rmse is not None and mean.rmse is not None
        assert by_components.spearman is not None and by_flops.spearman is not None
        assert by_flops.rmse < mean.rmse
        if target == "XWinograd":  # compute is as good there, on this table
            assert by_components.rmse < 1.1 * by_flops.rmse
            continue
        assert by_components.rmse < by_flops.rmse
        assert by_components.spearman > by_flops.spearman
        assert mean.spearman is None
    row = fast_rows["MMLU", "observational, 3 components"]
    assert (row.n_models, row.n_missing) == (123, 25)
    assert row.rmse == pytest.approx(0.05, abs=0.015)


@pytest.mark.slow
def test_matrix_completion_beats_compute_too(published: ScoreTable) -> None:
    methods = ["training FLOPs", "matrix completion, rank 2"]
    by_flops, completed = held_out_table(published, targets=["HellaSwag"], methods=methods, folds=5)
    assert completed.rmse is not None and by_flops.rmse is not None
    assert completed.spearman is not None and by_flops.spearman is not None
    assert completed.rmse < 0.5 * by_flops.rmse
    assert completed.spearman > by_flops.spearman + 0.1
    assert completed.n_models == by_flops.n_models == 123


@pytest.mark.parametrize("method", list(METHODS))
def test_no_method_sees_the_scores_that_it_forecasts(published: ScoreTable, method: str) -> None:
    """The held-out models' own scores of the target may be anything: the forecasts stay the same."""
    held_out = family_folds(published.families, 5, 0) == 2
    place = published.benchmarks.index("GSM8K")
    other = published.scores.copy()
    other[held_out, place] = np.random.default_rng(0).random(held_out.sum())
    found = METHODS[method](published, "GSM8K", held_out)
    assert np.isfinite(found).any()
    np.testing.assert_array_equal(
        found, METHODS[method](dataclasses.replace(published, scores=other), "GSM8K", held_out)
    )


def test_folds_keep_families_whole_even_and_without_regard_to_order(published: ScoreTable) -> None:
    folds = family_folds(published.families, 10, seed=3)
    for family in set(published.families):
        assert len({int(f) for f, name in zip(folds, published.families, strict=True) if name == family}) == 1
    sizes = np.bincount(folds)
    assert len(sizes) == 10 and sizes.max() - sizes.min() <= 3
    order = np.random.default_rng(1).permutation(148)
    shuffled = family_folds([published.families[i] for i in order], 10, seed=3)
    np.testing.assert_array_equal(shuffled, folds[order])
    assert (family_folds(published.families, 10, seed=4) != folds).any()
    assert len(np.bincount(family_folds(["a", "a", "b", "c"], 10, 0))) == 3


def test_a_method_without_fit_says_so_and_does_not_shrink_the_others(published: ScoreTable) -> None:
    unknown = dataclasses.replace(published, flops=np.full(148, np.nan))
    by_flops, by_size = held_out_table(
        unknown, targets=["MMLU"], methods=["training FLOPs", "parameters"], folds=5
    )
    assert (by_flops.rmse, by_flops.spearman) == (None, None)
    assert by_flops.reason is not None and by_flops.reason.startswith("no fit in 5 of 5 folds: 0 models")
    assert by_size.rmse is not None and by_size.n_models == 148


def test_unknown_names_and_single_families_are_refused(published: ScoreTable) -> None:
    with pytest.raises(ConfigError, match="unknown benchmark 'MMMLU'; known: MMLU"):
        held_out_table(published, targets=["MMMLU"])
    with pytest.raises(ConfigError, match="unknown method 'flops'"):
        held_out_table(published, methods=["flops"])
    with pytest.raises(InputError, match="1 families"):
        held_out_table(dataclasses.replace(published, families=("a",) * 148))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Model Family", "Family"), "no column 'Model Family'"),
        (
            ("huggyllama/llama-7b", "meta-llama/Llama-2-7b-hf"),
            "a second row for meta-llama/Llama-2-7b-hf, ",
        ),
        (("0.4379609636092418", "43.79609636092418"), "'MMLU': score 43.7961 is outside 0..1"),
        (("0.4379609636092418", "x"), "column 'MMLU': 'x' is not a number"),
        (("huggyllama/llama-7b,Llama,", "huggyllama/llama-7b,,"), "column 'Model Family' is empty"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(PATH.read_text().replace(*change, 1))
    with pytest.raises(InputError, match=message) as error:
        read_score_table(str(path))
    assert str(path) in str(error.value)


def test_report_holds_every_method_beside_size_alone() -> None:
    rng = np.random.default_rng(0)
    ability = rng.uniform(-2, 2, 24)
    names = ("a", "b", "c")
    scores = 1 / (1 + np.exp(-ability[:, None] - 0.2 * rng.normal(size=(24, 3))))
    flops = np.where(np.arange(24) % 8, 10 ** (ability + 21), np.nan)
    table = ScoreTable(
        tuple(f"m{i}" for i in range(24)),
        tuple(f"f{i % 6}" for i in range(24)),
        names,
        scores,
        flops / 1e12,
        flops / 1e10,
        flops,
    )
    progress: list[tuple[float, float]] = []
    result = evaluate_benchmarks(
        table, ["b", "a", "b"], folds=3, on_progress=lambda *done: progress.append(done)
    )
    assert progress == [(0, 2), (1, 2)]
    frames, record = result.frames(), result.as_record()
    assert frames["benchmarks"].to_dicts() == record["rows"]
    assert frames["size_alone"].to_dicts() == record["size_alone"]
    assert list(result.rows) == held_out_table(table, targets=["b", "a"], folds=3)
    assert [(row["target"], row["predictor"], row["n_unknown"]) for row in record["size_alone"]] == [
        (target, size, 3) for target in ("b", "a") for size in ("parameters", "training FLOPs")
    ]
    answer, methods, sizes = document("T.csv", result).sections[0].parts
    assert isinstance(answer, Paragraph) and ", a " in answer.text
    assert isinstance(methods, Table) and isinstance(sizes, Table)
    mean, *others = methods.cells()[: len(METHODS)]
    assert mean[:2] == ["b", MEAN] and mean[3] == "–", "a mean orders no models: its rho is missing"
    assert all(row[3].startswith(("+", "-")) and row[7] == "–" for row in others)
    assert [row[:2] for row in sizes.cells()][:2] == [["b", "parameters"], ["b", "training FLOPs"]]


def test_published_tables_are_told_from_tables_of_features(tmp_path: Path) -> None:
    assert is_score_table(str(PATH))
    for name, header in (("T.csv", "candidate,family,task,score,f"), ("T.csv", "Model,score")):
        (tmp_path / name).write_text(header + "\n")
        assert not is_score_table(str(tmp_path / name))
    assert not is_score_table(str(tmp_path / "T.parquet"))
