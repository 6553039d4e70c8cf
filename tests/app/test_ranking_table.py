"""What can be taken away from the page is complete and unrounded; words say what figures do."""

import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from populations import measured, noise, population_of, proxies_of, task_of

from app.ranking_table import correlations_csv, number_format, ranking_csv, standings_frame
from app.text import lead, message, plain
from forecast.analysis.ranking.single_proxy import rank_candidates
from forecast.config.schema import RankingConfig
from forecast.warehouse.population import Population

SETTINGS = RankingConfig(bootstraps=20, permutations=20, confidence=0.975)


def population(*scores: float) -> Population:
    made = population_of(
        {"sums": task_of({"human": noise(np.random.default_rng(0), 5, 6)})}, measured("exam", scores)
    )
    return replace(made, parameters=(134_515_008, None, 7, 8, 9), families=("a", None, "b", "b", "b"))


def test_ranking_csv_holds_every_figure_unrounded() -> None:
    ranking = rank_candidates(population(0.1, 0.2, 0.3, 0.4, np.nan), SETTINGS)
    table = pl.read_csv(io.BytesIO(ranking_csv(ranking)))
    assert table["candidate"].to_list() == [s.candidate for s in ranking.standings]
    assert table["rank"].to_list() == [s.rank for s in ranking.standings]
    assert table["parameters"].to_list() == [s.parameters for s in ranking.standings]
    assert table["measured"].to_list() == [s.measured for s in ranking.standings]
    for name in ranking.shown:
        assert table[name].to_list() == [s.values[name] for s in ranking.standings]
        assert table[f"rank__{name}"].to_list() == [s.ranks[name] for s in ranking.standings]


def test_a_name_in_a_csv_file_is_no_formula() -> None:
    made = population(0.1, 0.2, 0.3, 0.4, 0.5)
    names = ("=1+1", "@x", "-8 layers", "\ta", "b\x1b")
    ranking = rank_candidates(replace(made, candidates=names), SETTINGS)
    table = pl.read_csv(io.BytesIO(ranking_csv(ranking)))
    assert set(table["candidate"]) == {"'=1+1", "'@x", "'-8 layers", "'\ta", "b\\x1b"}


def test_correlations_csv_holds_all_80() -> None:
    ranking = rank_candidates(population(0.1, 0.2, 0.3, 0.4, 0.5), SETTINGS)
    table = pl.read_csv(io.BytesIO(correlations_csv(ranking)))
    assert table.height == 80
    assert table["spearman"].to_list() == [c.spearman for c in ranking.reports[0].correlations]


def test_frame_leaves_out_what_nobody_has() -> None:
    made = replace(population(0.1, 0.2, 0.3, 0.4, 0.5), targets=())
    frame = standings_frame(rank_candidates(made, SETTINGS))
    assert "measured" not in frame.columns.get_level_values(0)
    assert sorted(frame["", "parameters"].dropna()) == [7, 8, 9, 134_515_008]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.9, 0.01], "%.4f"),
        ([13.1, 3.08], "%.3f"),
        ([15075.1, 94.7], "%.1f"),
        ([-0.5], "%.4f"),
        ([], "%.4f"),
    ],
)
def test_a_column_has_one_number_of_decimals(values: list[float], expected: str) -> None:
    assert number_format(values) == expected


def test_lead_says_what_the_order_is_worth() -> None:
    quality = np.arange(5.0)[:, None] + np.arange(4) / 10
    agreeing = population_of({"sums": proxies_of(quality)}, measured("exam", [0.1, 0.2, 0.3, 0.4, 0.5]))
    text = lead(rank_candidates(agreeing, SETTINGS))
    assert text.startswith(r"c04 leads\, rank 1 of 5 over candidates and families") and r"n \= 5" in text


def test_lead_does_not_claim_agreement_where_every_proxy_disagrees() -> None:
    """Then the order is that of plain cross-entropy, and no proxy deserves to be praised."""
    quality = np.arange(5.0)[:, None] + np.arange(4) / 10
    task = proxies_of(quality)
    entropy_out = task.experts["human"].values.copy()
    entropy_out[:, :, 40:48] = 0.5  # entropy, which may point either way, says nothing
    opposed = task_of({"human": entropy_out})
    text = lead(
        rank_candidates(population_of({"sums": opposed}, measured("exam", [5, 4, 3, 2, 1])), SETTINGS)
    )
    assert r"rho with exam \-1\.00" in text and "may be chance" in text


def test_markup_in_names_and_commands_in_messages() -> None:
    assert plain("a\n\n# *b*") == r"a \# \*b\*"
    assert message("no data in /a_b; run `forecast run CONFIG` first") == (
        r"No data in \/a\_b\; run `forecast run CONFIG` first."
    )
