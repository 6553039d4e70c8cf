"""The public Python interface: what the command line does, with the same names, defaults and errors.

Nothing here prints. Progress is a callback: `on_event` for scoring, `on_progress` for long computations.
"""

import json
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forecast.errors import ConfigError, ForecastError, InterruptedRun

if TYPE_CHECKING:  # half a second to import; every function imports what it needs
    import polars as pl

    from forecast.analysis.checkpoints.forecast import CheckpointsResult
    from forecast.analysis.corpora.corpora_result import CorporaResult
    from forecast.analysis.diagnostics.diagnose import DiagnoseResult
    from forecast.analysis.ranking.held_out import TableReport
    from forecast.analysis.ranking.results import Ranking
    from forecast.analysis.ranking.saved_scorer import SavedScorer
    from forecast.config.schema import Config
    from forecast.plan import Failure, Plan, Unit
    from forecast.report.document import Document
    from forecast.runs.events import Subscriber
    from forecast.runs.status import RunStatus
    from forecast.warehouse.population import Population

# `event` names it. `released` (count), `failed` and `trouble` (error) come with `error` or `count` alone; the
# others are the lines of OUTPUT/runs/RUN.log.jsonl, see `forecast.runs.event_log`.
Event = dict[str, Any]
OnEvent = Callable[[Event], None]
OnProgress = Callable[[float, float], None]  # called with how much is done, of how much, in any unit
Show = Callable[["RunStatus"], AbstractContextManager["Subscriber"]]


def load(path: str | Path) -> "Run":
    """The run that a configuration file describes; nothing is computed yet.

    Raises:
        ConfigError: the file cannot be used; names file, line and the nearest valid key.
    """
    from forecast.config.loader import load_config

    return Run(load_config(Path(path)), str(path))


class Run:
    """A configuration and what has been computed for it; results lie below `config.output`."""

    def __init__(self, config: "Config", source: str | None = None) -> None:
        """Args: source: the file that reports name; None: the configuration's name."""
        self.config, self.source = config, source or config.name
        self._plan: Plan | None = None

    def __repr__(self) -> str:
        return f"Run({self.source!r}, output={self.config.output!r})"

    def plan(self) -> "Plan":
        """The units of work; read once, so load the run again after its inputs have changed."""
        if self._plan is None:
            from forecast.nightly.checkpoint_candidates import plan_of

            self._plan = plan_of(self.config)
        return self._plan

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
        return score_plan_of(self.plan(), address, retry, on_event, show)

    def aggregate(self) -> "list[Failure]":
        """Compute the proxies from the lake and publish the warehouse; returns all that failed so far."""
        return aggregate_plan(self.plan())

    def rank(self, over: Literal["tokens", "bytes"] = "tokens") -> "RunRanking":
        """Every proxy by itself against what is measured.

        Args:
            over: what a proxy's mean is over; bytes compare between tokenizers.

        Raises:
            NoDataError: nothing has been aggregated yet, or there is nothing to rank by.
        """
        from forecast.analysis.ranking.univariate import rank_candidates
        from forecast.warehouse.connect import open_warehouse, read_failures
        from forecast.warehouse.population import load_population

        with open_warehouse(self.config.output) as db:
            failed = [failure.as_record() for failure in read_failures(db)]
            population = load_population(db, over)
            ranking = rank_candidates(population, self.config.ranking)
        return RunRanking(self.config, self.source, population, ranking, failed)

    def tokens(self) -> "pl.LazyFrame":
        """The lake's rows, one a scored token: log-probability and entropy in nats, rank, ties.

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

        from forecast.warehouse.connect import open_warehouse

        with open_warehouse(self.config.output) as db:
            rows = db.sql(
                "SELECT candidate, family, task, proxy, value, expert_sd, n_experts, n_instances "
                "FROM task_proxies JOIN candidates USING (candidate_id) "
                "WHERE status = 'complete' ORDER BY place, task, proxy"
            ).to_arrow_table()
        return pl.DataFrame(rows)


@dataclass(frozen=True)
class RunRanking:
    """A run's ranking by single proxies, and what failed on the way to it."""

    config: "Config"
    source: str
    population: "Population"
    ranking: "Ranking"
    failed: list[dict[str, str]]

    @property
    def standings(self) -> "pl.DataFrame":
        """One row a candidate, best forecast first; `values` and `ranks` hold the shown proxies."""
        from forecast.analysis.ranking.results import Standing
        from forecast.report.records import frame_of

        return frame_of(self.ranking.standings, Standing)

    @property
    def correlations(self) -> "pl.DataFrame":
        """One row a target and proxy: Spearman's rho with its interval, Kendall's tau, n."""
        from forecast.analysis.ranking.results import Correlation
        from forecast.report.records import frame_of

        return frame_of((c for report in self.ranking.reports for c in report.correlations), Correlation)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before trusting it."""
        return self.ranking.warnings

    def held_out(
        self,
        features: Sequence[str] | None = None,
        *,
        workers: int | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> "TableReport | None":
        """Scorers under held-out evaluation, with their nulls; None where nothing is measured. Takes a while.

        Args:
            features: None: all 80 proxies.
            workers: processes; None: one for each core.
            options: fields of `forecast.analysis.ranking.held_out.Options`: protocols, scorers, seed,
                permutations, bootstraps, confidence.

        Raises:
            InputError: an unknown scorer, protocol or feature.
        """
        from forecast.analysis.ranking.feature_table_from_run import cells_of
        from forecast.analysis.ranking.held_out import Options, report_of

        if not self.ranking.reports:
            return None
        settings = self.config.ranking
        chosen = Options(**{"seed": settings.seed, "confidence": settings.confidence, **options})
        cells = cells_of(self.population, settings, None if features is None else list(features))
        return report_of(
            cells.imported,
            chosen,
            redraw=cells.redraw,
            workers=workers or _cores(),
            on_cost=on_progress or _ignore_progress,
        )

    def report(self, held_out: "TableReport | None" = None) -> "Document":
        """The report of `forecast rank --html`: `.save(path)`, and HTML in a notebook.

        Args:
            held_out: what `held_out()` returned; None: single proxies only.
        """
        from forecast.analysis.ranking.report import document

        return document(self.source, self.ranking, held_out)


def rank_table(
    table: "str | Path | pl.DataFrame",
    features: Sequence[str] | None = None,
    baselines: Sequence[str] = (),
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> "TableReport":
    """Rank from a table: columns candidate, family (optional), task, score, then one for each feature.

    Args:
        table: a file (CSV, JSONL, Parquet) or a frame.
        features: columns to use; None: all.
        baselines: columns that are no features but rows of their own, e.g. parameters.
        workers, options: as in `RunRanking.held_out`.

    Raises:
        InputError: the table is wrong, or an unknown scorer or protocol.
    """
    from forecast.analysis.ranking.feature_table_from_file import read_table
    from forecast.analysis.ranking.held_out import Options, report_of
    from forecast.inputs.frames import file_of

    chosen = Options(**options)
    with file_of(table) as path:
        imported = read_table(path, features, baselines)
    return report_of(imported, chosen, workers=workers or _cores(), on_cost=on_progress or _ignore_progress)


def compare_corpora(
    small: "str | Path | pl.DataFrame",
    targets: "str | Path | pl.DataFrame",
    *,
    budgets: Sequence[float] = (),
    parameters: Mapping[str, float] | None = None,
    training_tokens: Mapping[str, float] | None = None,
    scored_tokens: float | None = None,
    target_size: str | None = None,
    expert_parameters: float | None = None,
    expert_tokens: float | None = None,
    scaling_laws: bool = True,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> "CorporaResult":
    """How often small runs decide between pretraining corpora as large ones do, and at what cost.

    Args:
        small: columns corpus, size, seed, step, task, metric, value, and counts where known.
        targets: the large runs: columns corpus, seed, task, metric, value, and counts where known.
        budgets: fractions of the compute of one target run.
        parameters, training_tokens: by size; active parameters, tokens of a whole training run.
        scored_tokens: tokens read to score a run, prompts included.
        scaling_laws: fit them too.
        options: further fields of `forecast.analysis.corpora.corpora_result.CorporaOptions`: higher, lower,
            target_metric, losses, bootstraps, permutations, confidence, seed.

    Raises:
        ConfigError: an argument is out of range or names what is not there.
        InputError: a table is wrong.
    """
    from forecast.analysis.corpora import compare
    from forecast.analysis.corpora.compute_cost import Given
    from forecast.analysis.corpora.corpora_result import CorporaOptions
    from forecast.analysis.corpora.observations_from_file import read_tables
    from forecast.inputs.frames import file_of

    if bad := [b for b in budgets if not 0 < b < float("inf")]:
        raise ConfigError(f"budgets: {bad[0]:g}: expected a share of the target's compute above 0, e.g. 1e-3")
    if (expert_parameters is None) != (expert_tokens is None):
        raise ConfigError("expert_parameters and expert_tokens go together; give both")
    given = Given(
        parameters=dict(parameters or {}),
        tokens=dict(training_tokens or {}),
        scored_tokens=scored_tokens,
        target_size=target_size,
        expert_parameters=expert_parameters,
        expert_tokens=expert_tokens,
    )
    chosen = CorporaOptions(budgets=tuple(sorted(set(budgets))), given=given, laws=scaling_laws, **options)
    with file_of(small, "small") as observed, file_of(targets, "targets") as wanted:
        tables = read_tables(observed, wanted)
    return compare.compare_corpora(tables, chosen, workers or _cores(), on_progress)


def forecast_checkpoints(
    table: "str | Path | pl.DataFrame",
    *,
    target: str,
    proxy: str | Sequence[str] = (),
    fit_until: float | None = None,
    horizons: Sequence[float] = (),
    axis: str | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> "CheckpointsResult":
    """Forecast training runs from their first checkpoints.

    Args:
        table: columns run, step, tokens, task, metric, value; a file or a frame.
        target: the metric to forecast, an accuracy within 0..1.
        proxy: metrics to forecast through; with several, rolling origins choose.
        fit_until: last step that may be looked at; None: the last there is.
        horizons: in lengths of the window; (): 2, 4, 8 and 18.
        axis: what t counts: steps, tokens or flops; None: tokens where all rows have them.
        options: further fields of `forecast.analysis.checkpoints.forecast_run.CheckpointsOptions`: loss,
            loss_task, chance, breaks, confidence, min_gain.

    Raises:
        ConfigError: a horizon of 1 or less.
        InputError: the table is wrong, or no run has a metric.
        NoDataError: no run has enough checkpoints up to `fit_until`.
    """
    from forecast.analysis.checkpoints import forecast
    from forecast.analysis.checkpoints.forecast_run import CheckpointsOptions
    from forecast.analysis.checkpoints.training_runs import read_runs
    from forecast.inputs.frames import file_of

    if bad := [h for h in horizons if not h > 1]:
        raise ConfigError(f"horizons: {bad[0]:g}: expected more than 1, in lengths of the window")
    with file_of(table) as path:
        runs = read_runs(path, (target,), axis)
    last = max(float(series.step[-1]) for run in runs.runs for series in run.series.values())
    chosen = CheckpointsOptions(
        target=target,
        proxies=(proxy,) if isinstance(proxy, str) else tuple(proxy),
        fit_until=last if fit_until is None else fit_until,
        horizons=tuple(sorted(set(horizons))) or CheckpointsOptions.horizons,
        **options,
    )
    return forecast.forecast_checkpoints(runs, chosen, on_cost=on_progress)


def diagnose(run: Run, **options: Any) -> "DiagnoseResult":
    """What could make a run's ranking look better than it is: experts, ties, windows, tokenizers, leaks.

    Args:
        options: fields of `forecast.analysis.diagnostics.diagnose.DiagnoseOptions`: proxies, windows,
            min_k_percent, corpus, corpus_column, ngram, unit.

    Raises:
        NoDataError: nothing to rank by.
    """
    from forecast.analysis.diagnostics import diagnose as home
    from forecast.warehouse.connect import open_warehouse

    with open_warehouse(run.config.output) as db:
        return home.diagnose(db, run.config, home.DiagnoseOptions(**options))


def load_scorer(path: str | Path) -> "SavedScorer":
    """The scorer that `forecast rank --save FILE` wrote; a version mismatch is a Python warning.

    Raises:
        InputError: no such file, or not a saved scorer.
    """
    from forecast.analysis.ranking.saved_scorer import load_saved

    saved = load_saved(path)
    for text in saved.warnings:
        warnings.warn(text, stacklevel=2)
    return saved


def aggregate_plan(plan: "Plan") -> "list[Failure]":
    """See `Run.aggregate`."""
    from forecast.runs.records import load_failures
    from forecast.warehouse.build import build_warehouse

    return build_warehouse(plan, load_failures(plan))


def score_plan_of(
    plan: "Plan", address: str | None, retry: bool, on_event: OnEvent | None = None, show: Show | None = None
) -> dict[str, Any]:
    """See `Run.score`."""
    from forecast.runs.quarantine import Quarantine
    from forecast.runs.records import save_failures, score_record

    tell = on_event or _ignore
    done = plan.done()
    if not plan.units and plan.failures:
        raise ForecastError(
            "nothing can be scored:\n" + "\n".join(failure.error for failure in plan.failures)
        )
    quarantine = Quarantine(plan.config)
    if retry and (released := quarantine.release(plan)):
        tell({"event": "released", "count": released})
    aside = quarantine.of(plan)
    waiting = [unit for unit in plan.units if unit.address not in done]
    failures = list(plan.failures)
    failures += [
        aside[cid].failure()
        for cid in dict.fromkeys(u.candidate.candidate_id for u in waiting)
        if cid in aside
    ]
    waiting = [unit for unit in waiting if unit.candidate.candidate_id not in aside]
    for failure in failures:
        tell({"event": "failed", **failure.as_record()})
    if waiting:
        try:
            failures += _score_units(plan, waiting, done, failures, address, on_event, show)
        except KeyboardInterrupt:
            raise InterruptedRun("interrupted; run the same command again to resume") from None
    save_failures(plan, failures)
    return score_record(plan, failures)


def _score_units(
    plan: "Plan",
    waiting: "list[Unit]",
    done: Collection[str],
    failures: "Sequence[Failure]",
    address: str | None,
    on_event: OnEvent | None,
    show: Show | None,
) -> "list[Failure]":
    """Args: failures: what is known to fail before anything is scored."""
    from actors.cluster import connected
    from actors.scheduler import score_plan
    from forecast.runs.status import RunStatus

    status = RunStatus(plan, done, failures, job=os.environ.get("FORECAST_JOB"))
    with connected(plan.config.cluster, address), watched(status, on_event, show) as subscriber:
        return score_plan(plan, waiting, subscriber).failures


@contextmanager
def watched(
    status: "RunStatus", on_event: OnEvent | None = None, show: Show | None = None
) -> "Iterator[Subscriber]":
    """All subscribers of a run: its files, the metrics of Ray, and those given; how it ended is recorded.

    `FORECAST_STATUS_FILE` names one more place for the status (`actors.jobs.entrypoint` sets it).
    """
    from actors.prometheus import Metrics
    from forecast.runs.event_log import RunLog, log_file
    from forecast.runs.events import Subscriber, Subscribers
    from forecast.runs.status_file import StatusFile

    tell = on_event or _ignore

    def trouble(text: str) -> None:
        tell({"event": "trouble", "error": text})

    also = [path] if (path := os.environ.get("FORECAST_STATUS_FILE")) else []
    file, sink = StatusFile(status, also, trouble), log_file(status, trouble)
    metrics = Metrics(status, trouble)
    sinks = [sink] if on_event is None else [lambda line: tell(json.loads(line)), sink]
    log = RunLog(status, sinks)
    try:
        with nullcontext(Subscriber()) if show is None else show(status) as shown:
            yield Subscribers([status, log, file, metrics, shown])
        status.ended("done")
    except KeyboardInterrupt:
        status.ended("interrupted", "interrupted; run the same command again to resume")
        raise
    except BaseException as error:
        status.ended("failed", str(error) or type(error).__name__)
        raise
    finally:
        for subscriber in (log, sink, file, metrics):
            subscriber.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _ignore(event: Event) -> None:
    pass


def _ignore_progress(done: float, total: float) -> None:
    pass
