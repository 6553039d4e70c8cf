"""The analyses of tables and runs, each one call."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from forecast.api.arguments import (
    Names,
    OnProgress,
    TableSource,
    check_ranges,
    cores,
    ignore,
    names,
    one_of,
    options_of,
)
from forecast.api.run import Run
from forecast.api.subscribers import OnEvent, Show
from forecast.errors import ConfigError, did_you_mean

if TYPE_CHECKING:  # half a second to import; every function imports what it needs
    import polars as pl

    from forecast.analysis.baselines.report import BenchmarksResult
    from forecast.analysis.diagnostics.diagnose import DiagnoseResult, Watch
    from forecast.analysis.parity.compare import ParityResult
    from forecast.analysis.ranking.held_out import HeldOutResult
    from forecast.analysis.ranking.saved_scorer import SavedScorer


def rank_table(
    table: TableSource,
    features: Names | None = None,
    baselines: Names = (),
    *,
    protocol: Names = (),
    scorer: Names = (),
    seed: int = 0,
    permutations: int = 100,
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
        ConfigError: a number out of range, an unknown scorer or protocol.
        InputError: the table is wrong.
    """
    from forecast.analysis.ranking.feature_table_from_file import read_table
    from forecast.analysis.ranking.held_out import evaluate_held_out
    from forecast.inputs.frames import file_of

    check_ranges(workers=workers)
    options = options_of(protocol, scorer, permutations, bootstraps, confidence, seed)
    with file_of(table) as path:
        imported = read_table(path, None if features is None else names(features), names(baselines))
    return evaluate_held_out(imported, options, workers=workers or cores(), on_cost=on_progress or ignore)


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
        ConfigError: an unknown target, a number out of range.
        InputError: the table is wrong, or has fewer than two families.
    """
    from forecast.analysis.baselines.report import evaluate_benchmarks
    from forecast.inputs.frames import file_of
    from forecast.inputs.published.observational_scaling import read_score_table

    check_ranges(folds=folds, seed=seed)
    with file_of(table) as path:
        scores, wanted = read_score_table(path), names(target)
    if unknown := [name for name in wanted if name not in scores.benchmarks]:
        raise ConfigError(f"{table} has no benchmark {unknown[0]!r}; known: {', '.join(scores.benchmarks)}")
    return evaluate_benchmarks(scores, wanted, folds=folds, seed=seed, on_progress=on_progress or ignore)


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
        ConfigError: a number out of range; no such proxy.
        NoDataError: nothing to rank by.
    """
    check_ranges(ngram=ngram, min_k=min_k)
    one_of("--ngram-of", ngram_of, ("words", "characters"))
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
        proxies=names(proxy),
        windows=lengths,
        min_k_percent=min_k,
        corpus=names(corpus),
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
    check_ranges(trajectories=trajectories, tolerance=tolerance)
    from forecast.analysis.parity.compare import compare
    from forecast.analysis.parity.setups import two_setups, unfinished

    setups = two_setups(run.config, names(base), names(against), names(candidate), trajectories)
    sides = [Run(setup.config) for setup in (setups.base, setups.against)]
    with ExitStack() as stack:
        if unfinished(setups):  # starting Ray takes seconds, so it is done once
            from actors.cluster import connected

            stack.enter_context(connected(run.config.cluster, address))
        for setup, side in zip((setups.base, setups.against), sides, strict=True):
            (on_event or ignore)({"event": "setup", "setup": setup.role, "label": setup.label})
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
