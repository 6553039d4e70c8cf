"""What the pages show, read from the serving file and kept until another file takes its place."""

import os
from dataclasses import dataclass

import streamlit as st

from forecast.config import Config
from forecast.errors import NoDataError
from forecast.plan import Failure
from forecast.ranking.population import Population, load_population
from forecast.ranking.results import Ranking
from forecast.ranking.univariate import rank_candidates
from forecast.store.warehouse import open_warehouse, read_failures, serving_identity


@dataclass(frozen=True)
class RunView:
    """One warehouse as the pages need it."""

    name: str
    built_at: str  # UTC, ISO 8601
    window: str
    population: Population
    ranking: Ranking
    failures: tuple[Failure, ...]


def output_folder() -> str:
    """The run's output folder, as `forecast app` passes it on.

    Raises:
        NoDataError: the app was started in another way.
    """
    output = os.environ.get("FORECAST_OUTPUT")
    if not output:
        raise NoDataError("FORECAST_OUTPUT is not set; start the app with `forecast app CONFIG`")
    return output


def current_run() -> tuple[RunView, str]:
    """The run as it stands in the serving file, and that file's identity.

    Raises:
        NoDataError: nothing has been aggregated yet.
    """
    output = output_folder()
    identity = serving_identity(output)
    return _read(output, identity), identity


@st.cache_resource(max_entries=4, show_spinner="Reading the warehouse and resampling")
def _read(output: str, identity: str) -> RunView:
    with open_warehouse(output) as db:
        row = db.execute('SELECT name, built_at, "window", config FROM run').fetchone()
        if row is None:
            raise NoDataError(f"the warehouse in {output} is empty; run `forecast aggregate` again")
        config = Config.model_validate_json(row[3])
        population = load_population(db)
        failures = tuple(read_failures(db))
    return RunView(row[0], row[1], row[2], population, rank_candidates(population, config.ranking), failures)


@st.fragment(run_every="5s")
def follow(identity: str | None) -> None:
    """Draw the page again when another serving file has taken the place of the one it shows."""
    try:
        now: str | None = serving_identity(output_folder())
    except NoDataError:
        now = None
    if now != identity:
        st.rerun()
