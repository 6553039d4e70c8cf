"""Z-scores within tasks, and what is left out where numbers are missing."""

import numpy as np
from worlds import table_of, world

from forecast.analysis.ranking.feature_table import design_of, standardised


def test_z_scores_are_of_a_task_s_candidates() -> None:
    values = np.random.default_rng(0).normal(2, 5, size=(3, 7, 4))
    values[1, 2, 3] = np.nan
    z, constant = standardised(values)
    for t, f in np.ndindex(3, 4):
        column = values[t, :, f]
        known = column[np.isfinite(column)]
        np.testing.assert_allclose(z[t, :, f], (column - known.mean()) / known.std(), atol=1e-9)
    assert not constant.any()


def test_what_is_constant_has_z_0_and_is_named() -> None:
    table = world("ability", 0, 6, 3, 4)
    table.values[1, :, 2] = 0.1 + 0.2
    table.values[:, :, 3] = 1e300
    design, words = design_of(table)
    assert not design.z[1, :, 2].any() and not design.z[:, :, 3].any()
    assert design.z[0, :, 2].any()
    assert "f02 (on t01), f03 (on t00, t01, t02)" in words[0]


def test_scale_and_offset_of_a_feature_do_not_matter() -> None:
    table = world("ability", 1, 9, 2, 3)
    z = design_of(table)[0].z
    for factor in (1e-200, 3.0, 1e160):
        np.testing.assert_allclose(
            design_of(table_of(table.values * factor, table.scores))[0].z, z, atol=1e-9
        )


def test_a_row_without_most_features_goes_before_the_features() -> None:
    table = world("ability", 0, 6, 3, 10)
    table.values[1, 4, :5] = np.nan
    design, words = design_of(table)
    assert design.features == table.features
    assert design.usable.sum() == 17 and not design.usable[1, 4]
    assert not design.z[1, 4].any()
    assert words == ["left out for missing features: 1 cells: c004 on t01"]


def test_a_feature_that_a_task_lacks_goes_before_its_rows() -> None:
    table = world("ability", 0, 6, 3, 10)
    table.values[2, :, 7] = np.nan
    design, words = design_of(table)
    assert design.usable.all()
    assert design.features == tuple(name for name in table.features if name != "f07")
    assert words == ["left out for missing values: 1 features: f07"]


def test_cells_without_a_row_are_no_news() -> None:
    table = world("ability", 0, 6, 3, 4)
    table.values[0, 5] = np.nan
    design, words = design_of(table)
    assert not design.usable[0, 5] and design.usable.sum() == 17 and not words
    z = design.z[0, :5]
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-8)


def test_no_number_at_all_leaves_nothing_and_does_not_hang() -> None:
    table = world("ability", 0, 4, 2, 3)
    table.values[:] = np.nan
    design, _ = design_of(table)
    assert not design.usable.any()
