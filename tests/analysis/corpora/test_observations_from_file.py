"""Tables as they come: what is read, and what is refused with the line it stands in."""

from pathlib import Path
from typing import Any

import pytest
from analysis.corpora.small_runs import OBS, QUICK, TARGETS, find, report, tables

from forecast.analysis.corpora.corpora_result import CorporaOptions
from forecast.errors import ConfigError, InputError

GOOD: list[list[Any]] = [["a", "4M", 0, 10, "x", "nll", 1.0], ["b", "4M", 0, 10, "x", "nll", 2.0]]
GOALS: list[list[Any]] = [["a", "mean", "x", "accuracy", 0.5], ["b", "mean", "x", "accuracy", 0.4]]


@pytest.mark.parametrize(
    ("observed", "targets", "message"),
    [
        (
            [*GOOD, GOOD[0]],
            GOALS,
            r"obs.csv:4: a second row for a / 4M / 0 / 10.0 / x / nll, the first is at .*:2",
        ),
        (GOOD, [*GOALS, GOALS[1]], r"targets.csv:4: a second row"),
        ([[*GOOD[0][:6], "much"], GOOD[1]], GOALS, r"obs.csv:2: column 'value': 'much' is not a number"),
        ([[*GOOD[0][:6], "inf"], GOOD[1]], GOALS, r"obs.csv:2: .* infinite"),
        ([["a", "4M", 0, -5, "x", "nll", 1.0]], GOALS, r"'-5' is no step"),
        ([["a", "4M", 0, "late", "x", "nll", 1.0]], GOALS, r"'late' is no step"),
        ([[None, *GOOD[0][1:]]], GOALS, r"obs.csv:2: column 'corpus' is empty"),
        ([[*GOOD[0][:2], None, *GOOD[0][3:]]], GOALS, r"column 'seed' is empty"),
        ([[*GOOD[0][:6], "nan"]], GOALS, r"no row has a value"),
    ],
)
def test_defects_are_named_with_their_line(
    tmp_path: Path, observed: list[list[Any]], targets: list[list[Any]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tables(tmp_path, observed, targets)


def test_a_missing_column_is_told_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"obs.csv:1: no column 'metric'.*did you mean 'metrics'"):
        tables(tmp_path, GOOD, GOALS, columns=[*OBS[:5], "metrics", "value"])
    with pytest.raises(InputError, match=r"targets.csv:1: no column 'corpus' \(needed: corpus, task"):
        tables(tmp_path, GOOD, GOALS, target_columns=["mix", *TARGETS[1:]])


def test_values_that_are_missing_are_counted(tmp_path: Path) -> None:
    read = tables(
        tmp_path, [*GOOD, ["c", "4M", 0, 10, "x", "nll", None], ["d", "4M", 0, 10, "x", "nll", "NaN"]], GOALS
    )
    assert len(read.observations) == 2
    assert any("2 of 4 rows have no value and are left out" in words for words in read.warnings)


def test_seeds_and_steps_in_other_spellings(tmp_path: Path) -> None:
    rows = [["a", "4M", "Mean", "final", "x", "nll", 1], ["a", "4M", "1.0", "", "x", "nll", 1]]
    rows += [["a", "4M", "default", "last", "x", "nll", 1], ["a", 150000000, 2, -1, "x", "nll", 1]]
    read = tables(tmp_path, rows, GOALS)
    assert [o.seed for o in read.observations] == ["mean", "1", "default", "2"]
    assert {o.step for o in read.observations} == {None}
    assert read.observations[-1].size == "150000000"


def test_columns_seed_and_step_may_be_missing(tmp_path: Path) -> None:
    found = report(
        tmp_path,
        [[*row[:2], *row[4:]] for row in GOOD],
        [[row[0], *row[2:]] for row in GOALS],
        columns=[*OBS[:2], *OBS[4:]],
        target_columns=[TARGETS[0], *TARGETS[2:]],
    )
    assert find(found, size="4M", seed="mean").decision_accuracy == 1.0
    assert sum("no column" in words for words in found.warnings) == 3


def test_no_common_corpus_is_an_error_and_lost_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus is in both tables; observed: a, b; with a target: q"):
        report(tmp_path, GOOD, [["q", "mean", "x", "accuracy", 0.5]])
    extra = [*GOOD, ["lost", "4M", 0, 10, "x", "nll", 0.5]]
    found = report(tmp_path, extra, [*GOALS, ["big", "mean", "x", "accuracy", 0.9]])
    words = " ".join(found.warnings)
    assert "corpora without a target are ranked, and take no part in decision accuracies (1): lost" in words
    assert "corpora with a target but without observations are left out (1): big" in words
    assert find(found, seed="mean").n_corpora == 2
    assert found.ranking is not None and "lost" in {place.corpus for place in found.ranking.places}


def test_unknown_directions_metrics_and_sizes_are_refused(tmp_path: Path) -> None:
    odd = [[*row[:5], "goodness", row[6]] for row in GOOD]
    with pytest.raises(InputError, match=r"'goodness' better or worse.*--higher goodness"):
        report(tmp_path, odd, GOALS)
    options = CorporaOptions(bootstraps=10, laws=False, lower=("goodness",))
    assert find(report(tmp_path, odd, GOALS, options), seed="mean").decision_accuracy == 1.0
    both = [
        *GOALS,
        *([*row[:3], "f1", row[4]] for row in GOALS),
        *([*row[:3], "em", row[4]] for row in GOALS),
    ]
    assert report(tmp_path, GOOD, both, QUICK).targets.metric == "accuracy"
    neither = [[*row[:3], metric, row[4]] for row in GOALS for metric in ("f1", "rouge")]
    with pytest.raises(InputError, match="targets of 2 metrics; choose one with --target-metric: f1, rouge"):
        report(tmp_path, GOOD, neither)
    with pytest.raises(ConfigError, match="no target metric 'accurcy'; did you mean 'accuracy'"):
        report(tmp_path, GOOD, GOALS, CorporaOptions(target_metric="accurcy"))
    with pytest.raises(ConfigError, match="--loss los: no such metric"):
        report(tmp_path, GOOD, GOALS, CorporaOptions(losses=("los",)))
