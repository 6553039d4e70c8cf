"""A configuration and what has been computed for it: score, aggregate, rank, read."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forecast.api.arguments import Names, OnProgress, check_ranges, cores, ignore, names, one_of, options_of
from forecast.api.subscribers import OnEvent, Show, watched
from forecast.errors import ForecastError, InterruptedRun

if TYPE_CHECKING:  # half a second to import; every function imports what it needs
    import duckdb
    import polars as pl

    from forecast.analysis.ranking.held_out import HeldOutResult
    from forecast.analysis.ranking.leader import Leader
    from forecast.analysis.ranking.single_proxy import Ranking
    from forecast.config.schema import Config
    from forecast.lake.trajectory_view import CandidateTrajectory
    from forecast.plan import Failure, Plan
    from forecast.report.document import Document
    from forecast.warehouse.population import Population


def load(path: str | Path) -> "Run":
    """The run that a configuration file describes; nothing is computed yet.

    Raises:
        ConfigError: the file cannot be used; names file, line and the nearest valid key.
    """
    from forecast.config.loader import load_config

    return Run(load_config(Path(path)), str(path))


class Run:
    """A configuration and what has been computed for it; results lie below `config.output`.

    Attributes:
        failed: what had failed when the warehouse was built that was read last, as records of `--json`.
    """

    def __init__(self, config: "Config", source: str | None = None, plan: "Plan | None" = None) -> None:
        """Args: source: the file that reports name; None: the configuration's name."""
        self.config, self.source, self._plan = config, source or config.name, plan
        self._refused: list[Failure] | None = None
        self.failed: list[dict[str, str]] = []

    def __repr__(self) -> str:
        return f"Run({self.source!r}, output={self.config.output!r})"

    def plan(self) -> "Plan":
        """The units of work; read once, so load the run again after its inputs have changed."""
        if self._plan is None:
            from forecast.plan import make_plan

            if self.config.nightly is None:
                self._plan = make_plan(self.config)
            else:
                from forecast.nightly.checkpoint_candidates import plan_with_scored_checkpoints

                self._plan = plan_with_scored_checkpoints(self.config, self.config.nightly.watch)
        return self._plan

    def refused(self) -> "list[Failure]":
        """Candidates with work left that would fail, found without reading weights; looked for once."""
        if self._refused is None:
            plan = self.plan()
            done = plan.done()
            self._refused = []
            if waiting := [unit for unit in plan.units if unit.address not in done]:
                from forecast.preflight import refused_candidates

                self._refused = refused_candidates(plan, waiting)
        return self._refused

    def score(
        self,
        address: str | None = None,
        retry: bool = False,
        on_event: OnEvent | None = None,
        *,
        show: Show | None = None,
    ) -> dict[str, Any]:
        """Score what is not in the lake yet.

        Args:
            address: of a Ray cluster; None: the configuration's, else Ray on this machine.
            retry: try candidates again that are in quarantine after their own errors.
            on_event: called with every event.
            show: makes a subscriber that needs the run's status, e.g. a progress bar.

        Returns:
            What is in the lake afterwards, the record of `forecast score --json`; `failed` lists what failed.

        Raises:
            ForecastError: nothing can be scored.
            InterruptedRun: Ctrl-C; what is done is kept.
        """
        from forecast import storage
        from forecast.runs.quarantine import Quarantine
        from forecast.runs.records import save_failures, score_record

        plan, tell = self.plan(), on_event or ignore
        done = plan.done()
        if not plan.units and plan.failures:
            reasons = "\n".join(failure.error for failure in plan.failures)
            raise ForecastError(f"nothing can be scored:\n{reasons}")
        quarantine = Quarantine(plan.config)
        if retry and (released := quarantine.release(plan)):
            tell({"event": "released", "count": released})
        aside = quarantine.of(plan)
        refused = self.refused()
        bad = {failure.name for failure in refused}
        waiting = [unit for unit in plan.units if unit.address not in done]
        ids = dict.fromkeys(unit.candidate.candidate_id for unit in waiting)
        names = {unit.candidate.candidate_id: unit.candidate.name for unit in waiting}
        held = [aside[id_].failure() for id_ in ids if id_ in aside and names[id_] not in bad]
        failures = [*plan.failures, *refused, *held]
        for failure in failures:
            tell({"event": "failed", **failure.as_record()})
        for note in plan.notes():
            tell({"event": "note", "note": note})
        if waiting := [
            unit
            for unit in waiting
            if unit.candidate.candidate_id not in aside and unit.candidate.name not in bad
        ]:
            storage.try_out(plan.config.output)
            from actors.cluster import connected
            from actors.scheduler import score_plan
            from forecast.runs.status import RunStatus

            status = RunStatus(plan, done, failures, job=os.environ.get("FORECAST_JOB"))
            try:
                with connected(plan.config.cluster, address), watched(status, on_event, show) as subscriber:
                    failures += score_plan(plan, waiting, subscriber).failures
            except KeyboardInterrupt:
                raise InterruptedRun("interrupted; run the same command again to resume") from None
        save_failures(plan, failures)
        return score_record(plan, failures)

    def aggregate(self, unless_current: bool = False) -> "list[Failure]":
        """Compute the proxies from the lake and publish the warehouse; returns all that failed so far.

        Args:
            unless_current: leave the warehouse as it is where nothing that it follows from has changed.
        """
        from forecast.runs.records import load_failures
        from forecast.warehouse.build import build_warehouse
        from forecast.warehouse.current import build_unless_current

        build = build_unless_current if unless_current else build_warehouse
        return build(self.plan(), load_failures(self.plan()))

    @contextmanager
    def warehouse(self) -> "Iterator[duckdb.DuckDBPyConnection]":
        """A read-only connection to the warehouse, which also sets `failed`.

        Raises:
            NoDataError: nothing has been aggregated yet.
        """
        from forecast.warehouse.connect import open_warehouse, read_failures

        with open_warehouse(self.config.output) as db:
            self.failed = [failure.as_record() for failure in read_failures(db)]
            yield db

    def rank(
        self,
        over: Literal["auto", "tokens", "bytes"] = "auto",
        *,
        held_out: bool = True,
        on_progress: OnProgress | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> "RunRanking":
        """The standings, led by what the evidence allows, and every proxy against what is measured.

        Args:
            over: what a proxy's mean is over; auto: bytes where the candidates tokenize the texts in
                different ways, since means over tokens do not compare between tokenizers, else tokens.
            on_note: told of kept results that cannot be used.
            held_out: also evaluate scorers on models not seen, which may take minutes with many candidates;
                False: the leader is chosen among single proxies.

        Raises:
            ConfigError: `over` is something else.
            NoDataError: nothing has been aggregated yet, or there is nothing to rank by.
        """
        from forecast.analysis.ranking.single_proxy import Ranking, rank_candidates
        from forecast.storage.kept import kept_or_computed
        from forecast.warehouse.population import load_population

        one_of("--over", over, ("auto", "tokens", "bytes"))
        with self.warehouse() as db:
            population = load_population(db, over)
        settings = self.config.ranking
        ranking = kept_or_computed(
            self.config.output,
            "ranking",
            Ranking,
            (population, settings),
            lambda: rank_candidates(population, settings),
            on_note or ignore,
        )
        ranked = RunRanking(self.config, self.source, population, ranking, self.failed)
        return (
            ranked.led_by(ranked.held_out(on_progress=on_progress, on_note=on_note)) if held_out else ranked
        )

    def show(
        self,
        candidate: str | None = None,
        task: str | None = None,
        instance: str | None = None,
        expert: str | None = None,
    ) -> "CandidateTrajectory":
        """One trajectory as a candidate read it; what is not given is the first there is.

        Raises:
            ConfigError: no such candidate, task, instance or expert; names those there are.
            NoDataError: it is not scored yet.
        """
        from forecast.lake.trajectory_view import read_trajectory

        return read_trajectory(self.plan(), candidate, task, instance, expert)

    def tokens(self) -> "pl.LazyFrame":
        """The lake's rows, one a scored token: log-probability and entropy in nats, rank, ties, first choice.

        Raises:
            NoDataError: nothing is scored yet.
        """
        import polars as pl

        from forecast import storage
        from forecast.errors import NoDataError

        plan = self.plan()
        done = plan.done()
        paths = [plan.path(unit) for unit in plan.select("trajectories") if unit.address in done]
        if not paths:
            raise NoDataError(f"nothing is in {plan.folder('trajectories')}; run `forecast score` first")
        if storage.is_remote(paths[0]):
            import pyarrow.dataset

            fs, _ = storage.filesystem(paths[0])
            inner = [storage.filesystem(path)[1] for path in paths]
            return pl.scan_pyarrow_dataset(pyarrow.dataset.dataset(inner, filesystem=fs))
        return pl.scan_parquet(paths, glob=False)

    def proxies(self) -> "pl.DataFrame":
        """Proxies by candidate and task, from the warehouse: value, spread over experts, counts.

        Raises:
            NoDataError: nothing has been aggregated yet.
        """
        import polars as pl

        with self.warehouse() as db:
            rows = db.sql(
                "SELECT candidate, family, task, proxy, value, expert_sd, n_experts, n_instances "
                "FROM task_proxies JOIN candidates USING (candidate_id) "
                "WHERE status = 'complete' ORDER BY place, task, proxy"
            ).to_arrow_table()
        return pl.DataFrame(rows)


@dataclass(frozen=True)
class RunRanking:
    """A run's ranking, and what failed on the way to it."""

    config: "Config"
    source: str
    population: "Population"
    ranking: "Ranking"
    failed: list[dict[str, str]]
    evaluated: "HeldOutResult | None" = None  # the held-out evaluation that chose the leader

    @property
    def leader(self) -> "Leader":
        """What orders the candidates, and why."""
        return self.ranking.leader

    @property
    def standings(self) -> "pl.DataFrame":
        """One row a candidate, best first: rank, its interval, P(above the next), measured score."""
        return self.ranking.frames()["standings"]

    @property
    def correlations(self) -> "pl.DataFrame":
        """One row a target and proxy: Spearman's rho with its interval, Kendall's tau, n."""
        return self.ranking.frames()["correlations"]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before trusting it."""
        return self.ranking.warnings

    def frames(self) -> "dict[str, pl.DataFrame]":
        """`standings`, `targets` and `correlations`, as the report shows them."""
        return self.ranking.frames()

    def led_by(self, held_out: "HeldOutResult | None") -> "RunRanking":
        """The same with the leader that a held-out evaluation shows."""
        from forecast.analysis.ranking.single_proxy import with_held_out

        ranking = with_held_out(self.ranking, self.population, self.config.ranking, held_out)
        return replace(self, ranking=ranking, evaluated=held_out)

    def held_out(
        self,
        features: Names | None = None,
        *,
        protocol: Names = (),
        scorer: Names = (),
        seed: int | None = None,
        permutations: int = 100,
        bootstraps: int = 1000,
        confidence: float | None = None,
        workers: int | None = None,
        on_progress: OnProgress | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> "HeldOutResult | None":
        """Scorers under held-out evaluation, with their nulls; None where nothing is measured. Takes a while.

        Args:
            features: None: all 80 proxies.
            protocol, scorer: (): all.
            seed, confidence: None: the configuration's.
            permutations: for the null of each scorer.
            bootstraps: for intervals.
            workers: processes; None: one for each core.
            on_note: told of a kept result that cannot be used.

        Raises:
            ConfigError: a number out of range, an unknown scorer, protocol or feature.
        """
        from forecast.analysis.ranking.feature_table_from_run import cells_of
        from forecast.analysis.ranking.held_out import HeldOutResult, evaluate_held_out
        from forecast.storage.kept import kept_or_computed

        check_ranges(workers=workers)
        if not self.ranking.reports:
            return None
        settings = self.config.ranking
        options = options_of(
            protocol,
            scorer,
            permutations,
            bootstraps,
            settings.confidence if confidence is None else confidence,
            settings.seed if seed is None else seed,
        )
        own = None if features is None else names(features)

        def evaluated() -> HeldOutResult:
            cells = cells_of(self.population, settings, own)
            return evaluate_held_out(
                cells.imported,
                options,
                redraw=cells.redraw,
                workers=workers or cores(),
                on_cost=on_progress or ignore,
            )

        return kept_or_computed(
            self.config.output,
            "held-out",
            HeldOutResult,
            (self.population, settings, own, options),
            evaluated,
            on_note or ignore,
        )

    def as_record(self) -> dict[str, Any]:
        """For JSON: `rank` of `forecast run --json`."""
        from forecast.analysis.ranking.report import rank_record

        return rank_record(self.ranking, self.failed)

    def report(self) -> "Document":
        """The report of `forecast rank --html`: `.save(path)`, and HTML in a notebook."""
        from forecast.analysis.ranking.report import document

        return document(self.source, self.ranking, self.evaluated)
