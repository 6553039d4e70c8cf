"""What the pages show, read from the serving file and kept until another file takes its place."""

import logging
import os
from dataclasses import dataclass

import duckdb
import streamlit as st
from pydantic import ValidationError

from forecast.analysis.ranking.held_out import HeldOutResult, RankOptions
from forecast.analysis.ranking.single_proxy import Ranking, rank_candidates, with_held_out
from forecast.config.schema import Config, RankingConfig
from forecast.errors import NoDataError
from forecast.plan import Failure
from forecast.storage.errors import StorageError
from forecast.storage.kept import kept
from forecast.warehouse.connect import open_warehouse, read_failures, serving_identity
from forecast.warehouse.population import Population, load_population

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftOut:
    """Something of the run that is not in the ranking, or not wholly."""

    name: str  # of a candidate, a task or a file
    status: str  # incomplete or failed
    reason: str


@dataclass(frozen=True)
class Ranked:
    """The candidates that can be compared, and how."""

    population: Population
    ranking: Ranking


@dataclass(frozen=True)
class RunView:
    """One warehouse as the pages need it."""

    name: str
    built_at: str  # UTC, ISO 8601
    window: str
    left_out: tuple[LeftOut, ...]
    ranked: Ranked | None
    problem: str | None  # why there is no ranking


def output_folder() -> str:
    """The run's output folder, as `forecast app` passes it on.

    Raises:
        NoDataError: the app was started in another way.
    """
    output = os.environ.get("FORECAST_OUTPUT")
    if not output:
        raise NoDataError("FORECAST_OUTPUT is not set; start the app with `forecast app CONFIG`")
    return output


def current_identity() -> str | None:
    """Which serving file is there now; None where there is none."""
    try:
        return serving_identity(output_folder())
    except NoDataError:
        return None


def current_run(identity: str | None) -> RunView:
    """The run as it stands in the serving file of this identity.

    Raises:
        NoDataError: nothing has been aggregated yet, or not by this version of the program.
    """
    output = output_folder()
    if identity is None:
        raise NoDataError(
            f"there are no results in {output} yet; `forecast run CONFIG` makes them, with the CONFIG that "
            "this app was started with"
        )
    try:
        return _read(output, identity)
    except (duckdb.Error, ValidationError, StorageError) as error:
        _log.exception("cannot read the warehouse in %s", output)
        raise NoDataError(
            f"the warehouse in {output} cannot be read ({_first_line(error)}); if another version of the "
            "program built it, `forecast aggregate CONFIG` builds it again"
        ) from error


@st.cache_resource(max_entries=4, show_spinner="Reading the warehouse and resampling")
def _read(output: str, identity: str) -> RunView:
    """`identity` is not used but to tell one serving file from the next."""
    with open_warehouse(output) as db:
        row = db.execute('SELECT name, built_at, "window", config FROM run').fetchone()
        if row is None:
            raise NoDataError(f"the warehouse in {output} is empty; run `forecast aggregate CONFIG` again")
        name, built_at, window, config = row
        settings = Config.model_validate_json(config).ranking
        left_out = _left_out(db)
        try:
            population = load_population(db, "auto")
            ranking = kept(output, "ranking", Ranking, (population, settings), _log.warning)
            ranking = ranking or rank_candidates(population, settings)
            held_out = _kept_held_out(output, population, settings)
            ranked = Ranked(population, with_held_out(ranking, population, settings, held_out))
            problem = None
        except NoDataError as error:
            ranked, problem = None, str(error)
    return RunView(name, built_at, window, left_out, ranked, problem)


def _kept_held_out(output: str, population: Population, settings: RankingConfig) -> HeldOutResult | None:
    """What `forecast run` and `forecast rank` found last, so that the app names the same leader.

    None where none of them has run since the warehouse was built: minutes of work, not for a visitor.
    """
    options = RankOptions(confidence=settings.confidence, seed=settings.seed)
    inputs = (population, settings, None, options)
    return kept(output, "held-out", HeldOutResult, inputs, _log.warning)


def _left_out(db: duckdb.DuckDBPyConnection) -> tuple[LeftOut, ...]:
    """Candidates without numbers in the order of the configuration, then whatever else failed."""
    rows = db.execute(
        "SELECT candidate, status, error FROM candidates WHERE status <> 'complete' ORDER BY place"
    ).fetchall()
    candidates = [LeftOut(name, status, reason or "no reason was kept") for name, status, reason in rows]
    listed = {(entry.name, entry.reason) for entry in candidates}
    others = [
        LeftOut(_subject(failure), "failed", failure.error)
        for failure in read_failures(db)
        if (failure.name, failure.error) not in listed
    ]
    return (*candidates, *others)


def _subject(failure: Failure) -> str:
    return " · ".join(part for part in (failure.name, failure.task, failure.instance_id) if part)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


@st.fragment(run_every="5s")
def follow(identity: str | None) -> None:
    """Draw the page again when another serving file has taken the place of the one it shows."""
    if current_identity() != identity:
        st.rerun()
