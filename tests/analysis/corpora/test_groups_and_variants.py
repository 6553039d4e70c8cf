"""Corpora that are variants of one base, and runs that are variants of one corpus."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysis.corpora.simulations import interval_coverage
from analysis.corpora.small_runs import OBS, QUICK, find, report, tables, world

from forecast.analysis.corpora.bootstrap import best_of_many, corpus_weights
from forecast.analysis.corpora.compute_cost import Given
from forecast.analysis.corpora.decision_accuracy import pair_signs
from forecast.analysis.corpora.report import document
from forecast.analysis.corpora.variants import agreement, mean_of_runs, noise_units
from forecast.errors import InputError
from forecast.report.document import Table

GROUPED = (*OBS, "group")
VARIED = (*OBS, "variant")


@pytest.mark.parametrize("alike", [0.5, 0.9])
def test_intervals_hold_where_groups_are_resampled_whole(alike: float) -> None:
    """7 bases with 4 variants each; resampling corpora one by one held 0.75 at 0.9."""
    groups = np.repeat(np.arange(7), 4)
    assert interval_coverage(groups, 0.8, alike, 100) >= 0.88
    if alike == 0.9:
        assert interval_coverage(groups, 0.8, alike, 100, whole=False) < 0.85


def test_a_resample_has_groups_whole() -> None:
    groups = np.array([2, 0, 2, 1, 0])
    weights = corpus_weights(groups, 50, 0)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert set(weights[:, [0, 1, 3]].sum(axis=1)) == {3.0}


def test_null_of_the_best_permutes_groups_whole() -> None:
    """Independent of each other, but both alike within 4 groups: small p were three times too frequent."""
    groups = np.repeat(np.arange(4), 6)
    small = {True: 0, False: 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(2, 4))[:, groups] + 0.3 * rng.normal(size=(2, 24))
        for whole in small:
            own = groups if whole else np.arange(24)
            found = best_of_many(pair_signs(x)[None], y, own, 39, seed)
            assert found is not None and found.null.p is not None
            small[whole] += found.null.p <= 0.1
    assert small[True] <= 17 < small[False]


def grouped(rows: Any, size: int) -> list[list[Any]]:
    """Neighbouring corpora of the world as variants of one base."""
    return [[*row, f"base {int(row[0][1:]) // size}"] for row in rows]


def test_too_few_groups_have_no_interval_and_say_why(tmp_path: Path) -> None:
    observed, targets = world(corpora=12)
    given = Given(tokens={"10M": 1e9, "30M": 3e9, "100M": 1e10, "300M": 3e10})
    options = dataclasses.replace(QUICK, given=given)
    found = report(tmp_path, grouped(observed, 3), targets, options, columns=GROUPED)
    assert found.choices and any(len(points) > 1 for points in found.frontiers.values())
    row = find(found, metric="nll", size="100M", step=200, task="macro", seed="mean")
    assert (row.n_corpora, row.n_groups, row.ci_low) == (12, 4, None)
    assert row.decision_accuracy is not None and "4 groups of corpora, 5 are needed" in row.reason
    assert found.ranking is not None and found.ranking.over == "seeds"
    assert "4 groups of corpora have a target" in str(found.ranking.reason)
    for choice in found.choices:
        assert choice.regret is not None and np.isnan(choice.regret.low) and choice.regret.resampled >= 0
    for points in found.frontiers.values():
        assert {point.gain_low for point in points} == {None}
    enough = report(tmp_path, grouped(observed, 2), targets, columns=GROUPED)
    row = find(enough, metric="nll", size="100M", step=200, task="macro", seed="mean")
    assert row.n_groups == 6 and row.ci_low is not None
    assert enough.ranking is not None and enough.ranking.over == "corpora"


def test_an_empty_group_is_a_corpus_alone_and_two_groups_are_refused(tmp_path: Path) -> None:
    observed, targets = world(corpora=6, seeds=1, steps=(100,))
    rows = [[*row, "base" if row[0] in ("c00", "c01") else None] for row in observed]
    found = report(tmp_path, rows, targets, columns=GROUPED)
    assert find(found, metric="nll", size="10M", task="macro", seed="0").n_groups == 5
    rows[-1][-1] = "other"
    with pytest.raises(InputError, match="a corpus has one group in all rows"):
        tables(tmp_path, rows, targets, columns=GROUPED)


def test_mean_is_over_variants_and_their_effect_is_no_noise() -> None:
    """Variant b lowers all corpora by 10; corpus 2 has a seed more of it."""
    runs = np.array([[1.0, 2, 3], [1.2, 2.2, 3.2], [-9, -8, -7], [np.nan, np.nan, -6.8]])
    variants = ("a", "a", "b", "b")
    np.testing.assert_allclose(mean_of_runs(runs, variants), [(1.1 - 9) / 2, (2.1 - 8) / 2, (3.1 - 6.9) / 2])
    units = noise_units(runs, variants)
    assert units.shape == (2, 3) and np.ptp(units, axis=0).max() < 0.2
    np.testing.assert_allclose(units.mean(axis=0), mean_of_runs(runs, variants))
    assert noise_units(runs, ("", "", "", "")) is runs


def test_agreement_is_of_each_unit_with_the_mean_of_the_others() -> None:
    units = np.array([[1.0, 2, 3], [1, 2, 3], [1, 3, 2], [np.nan, np.nan, np.nan]])
    # First and second: the others' mean is (1, 2.5, 2.5), so bc does not count; third: bc is wrong of three.
    assert agreement(units) == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert agreement(units[:1]) is None and agreement(units[2:]) is None


def test_variants_have_rows_of_their_own_and_one_mean(tmp_path: Path) -> None:
    observed, targets = world(corpora=6, seeds=4, steps=(100,))
    rows = [[*row[:2], row[2] % 2, *row[3:], "ab"[row[2] // 2]] for row in observed]
    found = report(tmp_path, rows, targets, columns=VARIED)
    plain = report(tmp_path, observed, targets)
    own = {"metric": "nll", "size": "30M", "task": "x"}
    for seed in range(4):
        row = find(found, **own, seed=str(seed % 2), variant="ab"[seed // 2])
        assert row.decision_accuracy == find(plain, **own, seed=str(seed)).decision_accuracy
    mean = find(found, **own, seed="mean")
    assert (mean.variant, mean.n_seeds) == (None, 4)
    assert mean.decision_accuracy == find(plain, **own, seed="mean").decision_accuracy
    assert found.ranking is not None and "mean of 4 runs of 2 variants" in found.ranking.basis
    rows[0][2] = "mean"
    with pytest.raises(InputError, match="a mean over seeds of variant a"):
        tables(tmp_path, rows, targets, columns=VARIED)


def test_report_has_a_column_for_each_run_of_each_variant(tmp_path: Path) -> None:
    observed, targets = world(corpora=6, seeds=4, steps=(100,))
    rows = [[*row[:2], row[2] % 2, *row[3:], "ab"[row[2] // 2]] for row in observed]
    made = document(report(tmp_path, rows, targets, columns=VARIED), "x")
    (table,) = (part for s in made.sections if s.heading == "Decision accuracy" for part in s.parts)
    assert isinstance(table, Table)
    assert {"a, seed 0", "a, seed 1", "b, seed 0", "b, seed 1"} < set(table.frame.columns)
    assert table.frame["b, seed 1"].null_count() == 0
