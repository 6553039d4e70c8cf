"""The public Python interface: what the command line does, with the same names, defaults and errors.

Nothing here prints. Progress is a callback: `on_event` for scoring, `on_progress` for long computations. An
argument is called as its option is, also in messages. Where an option may be repeated, one value or several
may be given; where it takes `NAME=NUMBER`, a mapping or such texts.
"""

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from forecast.errors import ConfigError, ForecastError, InterruptedRun, did_you_mean

if TYPE_CHECKING:  # half a second to import; every function imports what it needs
    import duckdb
    import polars as pl

    from forecast.analysis.baselines.report import BenchmarksResult
    from forecast.analysis.checkpoints.forecast import CheckpointsResult
    from forecast.analysis.corpora.corpora_result import CorporaResult
    from forecast.analysis.diagnostics.diagnose import DiagnoseResult, Watch
    from forecast.analysis.parity.compare import ParityResult
    from forecast.analysis.ranking.held_out import HeldOutResult, RankOptions
    from forecast.analysis.ranking.saved_scorer import SavedScorer
    from forecast.analysis.ranking.single_proxy import Ranking
    from forecast.config.schema import Config
    from forecast.lake.trajectory_view import CandidateTrajectory
    from forecast.plan import Failure, Plan
    from forecast.report.document import Document
    from forecast.runs.events import Subscriber
    from forecast.runs.status import RunStatus
    from forecast.warehouse.population import Population

TableSource = Union[str, Path, "pl.DataFrame"]  # a file (CSV, JSONL, Parquet) or a frame
Names = str | Sequence[str]
Numbers = float | Sequence[float]
ByName = Mapping[str, float] | Names
# `event` names it. `released` comes with a count, `setup` with a label, `failed` and `trouble` with an error;
# the others are the lines of OUTPUT/runs/RUN.log.jsonl, see `forecast.runs.event_log`.
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
    """A configuration and what has been computed for it; results lie below `config.output`.

    Attributes:
        failed: what had failed when the warehouse was built that was read last, as records of `--json`.
    """

    def __init__(self, config: "Config", source: str | None = None, plan: "Plan | None" = None) -> None:
        """Args: source: the file that reports name; None: the configuration's name."""
        self.config, self.source, self._plan = config, source or config.name, plan
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
        from forecast.runs.quarantine import Quarantine
        from forecast.runs.records import save_failures, score_record

        plan, tell = self.plan(), on_event or _ignore
        done = plan.done()
        if not plan.units and plan.failures:
            reasons = "\n".join(failure.error for failure in plan.failures)
            raise ForecastError(f"nothing can be scored:\n{reasons}")
        quarantine = Quarantine(plan.config)
        if retry and (released := quarantine.release(plan)):
            tell({"event": "released", "count": released})
        aside = quarantine.of(plan)
        waiting = [unit for unit in plan.units if unit.address not in done]
        ids = dict.fromkeys(unit.candidate.candidate_id for unit in waiting)
        failures = [*plan.failures, *(aside[id_].failure() for id_ in ids if id_ in aside)]
        for failure in failures:
            tell({"event": "failed", **failure.as_record()})
        if waiting := [unit for unit in waiting if unit.candidate.candidate_id not in aside]:
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

    def aggregate(self) -> "list[Failure]":
        """Compute the proxies from the lake and publish the warehouse; returns all that failed so far."""
        from forecast.runs.records import load_failures
        from forecast.warehouse.build import build_warehouse

        return build_warehouse(self.plan(), load_failures(self.plan()))

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

    def rank(self, over: Literal["tokens", "bytes"] = "tokens") -> "RunRanking":
        """Every proxy by itself against what is measured.

        Args:
            over: what a proxy's mean is over; bytes compare between tokenizers.

        Raises:
            NoDataError: nothing has been aggregated yet, or there is nothing to rank by.
        """
        from forecast.analysis.ranking.single_proxy import rank_candidates
        from forecast.warehouse.population import load_population

        if over not in ("tokens", "bytes"):
            raise ConfigError(f"over={over!r}: expected tokens or bytes")
        with self.warehouse() as db:
            population = load_population(db, over)
        ranking = rank_candidates(population, self.config.ranking)
        return RunRanking(self.config, self.source, population, ranking, self.failed)

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

        with self.warehouse() as db:
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
        from forecast.analysis.ranking.single_proxy import Standing
        from forecast.report.records import frame_of

        return frame_of(self.ranking.standings, Standing)

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

    def held_out(
        self,
        features: Names | None = None,
        *,
        protocol: Names = (),
        scorer: Names = (),
        seed: int | None = None,
        permutations: int = 200,
        bootstraps: int = 1000,
        confidence: float | None = None,
        workers: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> "HeldOutResult | None":
        """Scorers under held-out evaluation, with their nulls; None where nothing is measured. Takes a while.

        Args:
            features: None: all 80 proxies.
            protocol, scorer: (): all.
            seed, confidence: None: the configuration's.
            permutations: for the null of each scorer.
            bootstraps: for intervals.
            workers: processes; None: one for each core.

        Raises:
            InputError: an unknown scorer, protocol or feature.
        """
        from forecast.analysis.ranking.feature_table_from_run import cells_of
        from forecast.analysis.ranking.held_out import evaluate_held_out

        if not self.ranking.reports:
            return None
        settings = self.config.ranking
        options = _options_of(
            protocol,
            scorer,
            permutations,
            bootstraps,
            settings.confidence if confidence is None else confidence,
            settings.seed if seed is None else seed,
        )
        cells = cells_of(self.population, settings, None if features is None else _names(features))
        return evaluate_held_out(
            cells.imported,
            options,
            redraw=cells.redraw,
            workers=workers or _cores(),
            on_cost=on_progress or _ignore,
        )

    def as_record(self) -> dict[str, Any]:
        """For JSON: `rank` of `forecast run --json`."""
        from forecast.analysis.ranking.report import rank_record

        return rank_record(self.ranking, self.failed)

    def report(self, held_out: "HeldOutResult | None" = None) -> "Document":
        """The report of `forecast rank --html`: `.save(path)`, and HTML in a notebook.

        Args:
            held_out: what `held_out()` returned; None: single proxies only.
        """
        from forecast.analysis.ranking.report import document

        return document(self.source, self.ranking, held_out)


def rank_table(
    table: TableSource,
    features: Names | None = None,
    baselines: Names = (),
    *,
    protocol: Names = (),
    scorer: Names = (),
    seed: int = 0,
    permutations: int = 200,
    bootstraps: int = 1000,
    confidence: float = 0.95,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> "HeldOutResult":
    """Rank from a table: columns candidate, family (optional), task, score, then one for each feature.

    Args:
        features: columns to use; None: all.
        baselines: columns that are no features but rows of their own, e.g. parameters.
        protocol, scorer, permutations, bootstraps, workers: as in `RunRanking.held_out`.

    Raises:
        InputError: the table is wrong, or an unknown scorer or protocol.
    """
    from forecast.analysis.ranking.feature_table_from_file import read_table
    from forecast.analysis.ranking.held_out import evaluate_held_out
    from forecast.inputs.frames import file_of

    options = _options_of(protocol, scorer, permutations, bootstraps, confidence, seed)
    with file_of(table) as path:
        imported = read_table(path, None if features is None else _names(features), _names(baselines))
    return evaluate_held_out(imported, options, workers=workers or _cores(), on_cost=on_progress or _ignore)


def forecast_benchmarks(
    table: str | Path,
    *,
    target: Names = (),
    folds: int = 10,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> "BenchmarksResult":
    """Forecast benchmarks from all others, and from size alone, for held-out families.

    Args:
        table: CSV file of published scores: Model, Model Family, Model Size (B), Pretraining Data Size (T),
            FLOPs (1E21), then one column for each benchmark.
        target: benchmarks; (): each.
        folds: the families are held out in so many.

    Raises:
        ConfigError: an unknown target.
        InputError: the table is wrong, or has fewer than two families.
    """
    from forecast.analysis.baselines.report import evaluate_benchmarks
    from forecast.inputs.published.observational_scaling import read_score_table

    scores, wanted = read_score_table(str(table)), _names(target)
    if unknown := [name for name in wanted if name not in scores.benchmarks]:
        raise ConfigError(f"{table} has no benchmark {unknown[0]!r}; known: {', '.join(scores.benchmarks)}")
    return evaluate_benchmarks(scores, wanted, folds=folds, seed=seed, on_progress=on_progress or _ignore)


def _options_of(
    protocol: Names, scorer: Names, permutations: int, bootstraps: int, confidence: float, seed: int
) -> "RankOptions":
    from forecast.analysis.ranking.held_out import RankOptions

    scorers, protocols = _names(scorer) or RankOptions.scorers, _names(protocol) or RankOptions.protocols
    return RankOptions(scorers, protocols, permutations, bootstraps, confidence, seed)


def compare_corpora(
    source: Run | TableSource,
    targets: TableSource | None = None,
    *,
    higher: Names = (),
    lower: Names = (),
    target_metric: str | None = None,
    target_size: str | None = None,
    budget: Numbers = (),
    parameters: ByName = (),
    training_tokens: ByName = (),
    scored_tokens: float | None = None,
    expert_parameters: float | None = None,
    expert_tokens: float | None = None,
    loss: Names = (),
    scaling_laws: bool = True,
    bootstraps: int = 1000,
    permutations: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> "CorporaResult":
    """How often small runs decide between pretraining corpora as large ones do, and at what cost.

    Args:
        source: a run whose candidates have a `corpus`; or small runs as a table with columns corpus, size,
            seed, step, task, metric, value, and counts where known.
        targets: the large runs: columns corpus, seed, task, metric, value, and counts where known.
        higher, lower: metrics where higher or lower is better.
        budget: share of the compute of one target run.
        parameters, training_tokens: by size; active parameters, tokens of a whole training run.
        scored_tokens: tokens read to score a run, prompts included.
        loss: metrics to fit scaling laws to; (): cross-entropies, by their name.
        workers: processes; None: one for each core.

    Raises:
        ConfigError: an argument is out of range or names what is not there.
        InputError: a table is wrong.
        NoDataError: the run has no candidate with a corpus, or nothing is measured.
    """
    budgets = _numbers(budget)
    if bad := [b for b in budgets if not 0 < b < math.inf]:
        raise ConfigError(f"--budget {bad[0]:g}: expected a share of the target's compute above 0, e.g. 1e-3")
    if (expert_parameters is None) != (expert_tokens is None):
        raise ConfigError("--expert-parameters and --expert-tokens go together; give both")
    expected = "SIZE=NUMBER, e.g. 150M=151898880"
    active = _by_name("--parameters", parameters, expected, lambda n: 0 < n < math.inf)
    tokens = _by_name("--training-tokens", training_tokens, expected, lambda n: 0 < n < math.inf)
    from forecast.analysis.corpora import compare
    from forecast.analysis.corpora.compute_cost import Given
    from forecast.analysis.corpora.corpora_result import CorporaOptions

    if isinstance(source, Run) and targets is None:
        from forecast.analysis.corpora.observations_from_run import tables_of

        with source.warehouse() as db:
            tables = tables_of(db, target_size)
    elif isinstance(source, Run) or targets is None:
        raise ConfigError("--table (small runs) and --targets (large runs) go together; give both")
    else:
        from forecast.analysis.corpora.observations_from_file import read_tables
        from forecast.inputs.frames import file_of

        with file_of(source) as observed, file_of(targets, "targets") as wanted:
            tables = read_tables(observed, wanted)
    options = CorporaOptions(
        higher=_names(higher),
        lower=_names(lower),
        target_metric=target_metric,
        budgets=budgets,
        given=Given(
            parameters=active,
            tokens=tokens,
            scored_tokens=scored_tokens,
            target_size=target_size,
            expert_parameters=expert_parameters,
            expert_tokens=expert_tokens,
        ),
        laws=scaling_laws,
        losses=_names(loss),
        bootstraps=bootstraps,
        permutations=permutations,
        confidence=confidence,
        seed=seed,
    )
    return compare.compare_corpora(tables, options, workers or _cores(), on_progress)


def forecast_checkpoints(
    source: Run | TableSource,
    *,
    proxy: Names = (),
    target: str | None = None,
    fit_until: float | None = None,
    horizon: Numbers = (),
    cross_entropy: str | None = None,
    chance: ByName = (),
    axis: str | None = None,
    break_: Numbers = (),
    confidence: float = 0.9,
    min_gain: float = 0.01,
    on_progress: OnProgress | None = None,
) -> "CheckpointsResult":
    """Forecast training runs from their first checkpoints.

    Args:
        source: a run whose candidates have a `step`; or a table with columns run, step, tokens, task, metric,
            value.
        proxy: metrics to forecast through; with several, rolling origins choose. (): of a run
            cross_entropy__uniform, of a table none.
        target: the metric to forecast, an accuracy within 0..1. None: a run's most frequent measured score.
        fit_until: last step that may be looked at; None: the last there is.
        horizon: in lengths of the window; (): 2, 4, 8 and 18.
        cross_entropy: `METRIC` or `METRIC:TASK` of generic texts, for the two-step baselines.
        chance: chance level by task, 0 to below 1.
        axis: what t counts: steps, tokens or flops; None: tokens where all rows have them.
        break_: steps at which the learning-rate schedule breaks.
        min_gain: smallest gain in accuracy that makes continuing a run worth it.

    Raises:
        ConfigError: an argument is out of range; a table without a target.
        InputError: the table is wrong, or no run has a metric.
        NoDataError: no run has enough checkpoints up to `fit_until`.
    """
    horizons, proxies = _numbers(horizon), _names(proxy)
    if bad := [h for h in horizons if not 1 < h < math.inf]:
        raise ConfigError(f"--horizon {bad[0]:g}: expected more than 1, in lengths of the window")
    expected = "TASK=P with P from 0 to below 1, e.g. arc_easy=0.25"
    levels = _by_name("--chance", chance, expected, lambda p: 0 <= p < 1)
    from forecast.analysis.checkpoints import forecast
    from forecast.analysis.checkpoints.forecast_run import CheckpointsOptions

    if isinstance(source, Run):
        from forecast.analysis.checkpoints.runs_from_run import runs_of

        with source.warehouse() as db:
            runs, target = runs_of(db, target, axis)
        proxies = proxies or ("cross_entropy__uniform",)
    elif target is None:
        raise ConfigError("--table needs --target METRIC, the accuracy to forecast")
    else:
        from forecast.analysis.checkpoints.training_runs import read_runs
        from forecast.inputs.frames import file_of

        with file_of(source) as path:
            runs = read_runs(path, (target,), axis)
    metric, _, task = (cross_entropy or "").partition(":")
    options = CheckpointsOptions(
        target=target,
        proxies=proxies,
        fit_until=runs.last_step if fit_until is None else fit_until,
        loss=metric or None,
        loss_task=task or None,
        horizons=horizons or CheckpointsOptions.horizons,
        chance=levels,
        breaks=_numbers(break_),
        confidence=confidence,
        min_gain=min_gain,
    )
    return forecast.forecast_checkpoints(runs, options, on_cost=on_progress)


def diagnose(
    run: Run,
    *,
    proxy: Names = (),
    corpus: Names = (),
    corpus_column: str = "text",
    ngram: int | None = None,
    ngram_of: Literal["words", "characters"] = "words",
    min_k: float = 20.0,
    windows: Sequence[int] | str = (100, 250, 500, 1000),
    watch: "Watch | None" = None,
) -> "DiagnoseResult":
    """What could make a run's ranking look better than it is: experts, ties, windows, tokenizers, leaks.

    Args:
        proxy: (): cross_entropy__uniform and the one that leads the ranking.
        corpus: files or folders in which the trajectories are looked up.
        ngram: length of a match; None: 13 words or 50 characters.
        min_k: percent of least likely tokens in Min-K%.
        windows: compared with all scored tokens: their last n; numbers, or a text with commas between them.
        watch: makes a progress display, once for each of the long parts.

    Raises:
        ConfigError: a window below 1; no such proxy.
        NoDataError: nothing to rank by.
    """
    texts = [n for n in windows.split(",") if n.strip()] if isinstance(windows, str) else windows
    try:
        lengths = tuple(int(n) for n in texts)
    except ValueError:
        lengths = (0,)
    if any(n < 1 for n in lengths):
        raise ConfigError(
            f"--windows {windows}: expected numbers of tokens, 1 or more, with commas, e.g. 100,500"
        )
    from forecast.analysis.diagnostics import diagnose as home

    options = home.DiagnoseOptions(
        proxies=_names(proxy),
        windows=lengths,
        min_k_percent=min_k,
        corpus=_names(corpus),
        corpus_column=corpus_column,
        ngram=ngram or (13 if ngram_of == "words" else 50),
        unit=ngram_of,
    )
    with run.warehouse() as db:
        return home.diagnose(db, run.config, options, **({"watch": watch} if watch else {}))


def parity(
    run: Run,
    *,
    against: Names = (),
    base: Names = (),
    candidate: Names = (),
    trajectories: int = 32,
    tolerance: float | None = None,
    address: str | None = None,
    on_event: OnEvent | None = None,
    show: Show | None = None,
) -> "ParityResult":
    """Score the same trajectories under two setups of the engine, as far as that is not done, and compare.

    Args:
        against: `KEY=VALUE` of the engine section: what differs from the base; (): the other dtype.
        base: likewise, what differs from the configuration on both sides.
        candidate: compare only these.
        trajectories: the first so many of each task; 0: all.
        tolerance: largest difference of a log-probability that is still agreement, nats.
        address, on_event, show: as in `Run.score`.

    Raises:
        ConfigError: an unknown key or candidate.
        NoDataError: nothing can be scored in one of the setups, or no candidate was read in both.
    """
    from forecast.analysis.parity.compare import compare
    from forecast.analysis.parity.setups import two_setups, unfinished

    setups = two_setups(run.config, _names(base), _names(against), _names(candidate), trajectories)
    sides = [Run(setup.config) for setup in (setups.base, setups.against)]
    with ExitStack() as stack:
        if unfinished(setups):  # starting Ray takes seconds, so it is done once
            from actors.cluster import connected

            stack.enter_context(connected(run.config.cluster, address))
        for setup, side in zip((setups.base, setups.against), sides, strict=True):
            (on_event or _ignore)({"event": "setup", "setup": setup.role, "label": setup.label})
            side.score(address, on_event=on_event, show=show)
    return compare(run.config, setups, sides[0].plan(), sides[1].plan(), tolerance)


def convert(name: str, source: str | Path) -> "pl.DataFrame":
    """A published table in the form that `compare_corpora` or `forecast_checkpoints` reads.

    Args:
        name: datadecide (both of its tables) or olmo (evaluations of a pretraining run).
        source: the published file; a local path or `s3://...`.

    Raises:
        ConfigError: no such converter.
        InputError: the table is wrong.
    """
    from forecast.inputs.published import datadecide, olmo

    converters = {"datadecide": datadecide.convert, "olmo": olmo.convert}
    if name not in converters:
        raise ConfigError(f"no converter {name!r}; {did_you_mean(name, converters)}")
    return converters[name](str(source))


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


def _names(given: Names) -> tuple[str, ...]:
    """Each once, in the order given."""
    return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))


def _numbers(given: Numbers) -> tuple[float, ...]:
    """Each once, in ascending order."""
    return (given,) if isinstance(given, int | float) else tuple(sorted(set(given)))


def _by_name(option: str, given: ByName, expected: str, valid: Callable[[float], bool]) -> dict[str, float]:
    """Numbers by name, from a mapping or from texts `NAME=NUMBER`."""
    texts = [f"{name}={n}" for name, n in given.items()] if isinstance(given, Mapping) else _names(given)
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            found[name.strip()] = math.nan
        if not name or not valid(found[name.strip()]):
            raise ConfigError(f"{option} {text}: expected {expected}")
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _ignore(*_: object) -> None:
    pass
