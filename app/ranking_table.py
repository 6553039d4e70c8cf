"""The ranking as a table for the eye, and as files to take away."""

import math
from dataclasses import asdict
from typing import Any

import pandas as pd
import polars as pl
import streamlit as st

from app.text import proxy_title
from forecast.analysis.ranking.single_proxy import Ranking
from forecast.proxies.token_proxies import PROXIES
from forecast.safe_text import clean, printable, spreadsheet_cell

_PROXIES = {proxy.name: proxy for proxy in PROXIES}
_ROW = 35  # pixels of a row of st.dataframe


def standings_frame(ranking: Ranking) -> pd.DataFrame:
    """A row per candidate, best forecast first; the columns have two levels, since names of proxies are long.

    `measured` columns are there when any candidate has a score. What is missing is null.
    """
    columns: dict[tuple[str, str], list[Any]] = {
        ("", "rank"): [s.rank for s in ranking.standings],
        ("", "from"): [s.rank_low for s in ranking.standings],
        ("", "to"): [s.rank_high for s in ranking.standings],
        ("", "candidate"): [clean(s.candidate) for s in ranking.standings],
        ("", "family"): [s.family and clean(s.family) for s in ranking.standings],
        ("", "parameters"): [s.parameters for s in ranking.standings],
        ("", "P(above next)"): [s.p_above_next for s in ranking.standings],
    }
    if _measured(ranking):
        columns["measured", "score"] = [s.measured for s in ranking.standings]
        columns["measured", "± se"] = [s.measured_stderr for s in ranking.standings]
        columns["measured", "rank"] = [s.measured_rank for s in ranking.standings]
    for name in ranking.shown:
        columns[_heading(name)] = [s.values[name] for s in ranking.standings]
    texts = {("", "candidate"), ("", "family")}
    frame = pd.DataFrame(
        {key: pd.Series(values, dtype=object if key in texts else float) for key, values in columns.items()}
    )
    frame.columns = pd.MultiIndex.from_tuples(columns)
    return frame


def show_standings(ranking: Ranking) -> None:
    """Draw the table."""
    frame = standings_frame(ranking)
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    settings: dict[tuple[str, str], Any] = {
        ("", "rank"): number(format="%g", pinned=True, help="By the leader; 1 is best, ties share."),
        ("", "from"): number(format="%g", pinned=True, help=_interval(ranking)),
        ("", "to"): number(format="%g", pinned=True, help=_interval(ranking)),
        ("", "P(above next)"): number(format="%.2f", help="Probability of standing above the next one."),
        ("", "candidate"): text(pinned=True),
        ("", "parameters"): number(format="compact"),
        ("measured", "score"): number(format="%.3f"),
        ("measured", "± se"): number(format="%.3f", help="Standard error of the score."),
        ("measured", "rank"): number(format="%g", help="By the measured score; 1 is best, ties share."),
    }
    for name in ranking.shown:
        values = [s.values[name] for s in ranking.standings]
        settings[_heading(name)] = number(format=number_format(values), help=_meaning(name))
    # Columns of two levels are addressed by their place, counted from 1: 0 is the hidden index.
    by_place: dict[Any, Any] = {i: settings[key] for i, key in enumerate(frame.columns, 1) if key in settings}
    st.dataframe(
        frame,
        hide_index=True,
        placeholder="–",
        height=_ROW * (min(len(frame), 20) + 2) + 3,
        column_config=by_place,
        alt="Ranking of the candidates",
    )


def number_format(values: list[float]) -> str:
    """One number of decimals for a column: four significant digits of its largest value, at most four."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    decimals = 4 if largest < 1 else 3 if largest < 100 else 1
    return f"%.{decimals}f"


def ranking_csv(ranking: Ranking) -> bytes:
    """Unrounded; a proxy's column holds its value, `rank__` before its name the candidate's rank by it."""
    rows = []
    for standing in ranking.standings:
        record = asdict(standing)
        values, ranks = record.pop("values"), record.pop("ranks")
        row = {"rank": record.pop("rank"), **record}
        for name in ranking.shown:
            row |= {name: values[name], f"rank__{name}": ranks[name]}
        rows.append(row)
    return _csv(rows)


def correlations_csv(ranking: Ranking) -> bytes:
    """All 80 proxies against every target, unrounded."""
    rows = [asdict(c) for report in ranking.reports for c in report.correlations]
    return _csv(rows)


def _csv(rows: list[dict[str, Any]]) -> bytes:
    """For spreadsheets: texts of others are no formulas there."""
    frame = pl.DataFrame(rows, infer_schema_length=None)
    cell = pl.col(pl.String).map_elements(
        lambda text: spreadsheet_cell(printable(text)), return_dtype=pl.String
    )
    return frame.with_columns(cell).write_csv().encode()


def _interval(ranking: Ranking) -> str:
    over = ranking.standings[0].interval_over
    if over is None:
        return f"There is no interval: {ranking.interval_reason}."
    return f"{100 * ranking.confidence:g}% interval of the rank, over {over}."


def _measured(ranking: Ranking) -> bool:
    return any(s.measured is not None for s in ranking.standings)


def _heading(name: str) -> tuple[str, str]:
    metric, _, weighting = name.partition("__")
    return metric, f"× {weighting}"


def _meaning(name: str) -> str:
    proxy = _PROXIES[name]
    direction = {"low": "low is better", "high": "high is better", "learned": "direction learned from scores"}
    return f"{proxy_title(name)}: {direction[proxy.metric.better]}; {proxy.weighting.meaning}."
