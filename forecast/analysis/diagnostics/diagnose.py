"""All diagnostics of one run, in one pass over its lake."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
from rich.console import Console

from forecast.analysis.diagnostics.contamination import Contamination, contamination, not_searched
from forecast.analysis.diagnostics.corpus_reader import CorpusProgress, corpus_files, read_corpus
from forecast.analysis.diagnostics.expert_agreement import ExpertAgreement, expert_agreement
from forecast.analysis.diagnostics.family_bias import ExpertOverlap, expert_overlap
from forecast.analysis.diagnostics.min_k_prob import MinKResult, compare_min_k, min_k
from forecast.analysis.diagnostics.ngram_index import NgramUnit
from forecast.analysis.diagnostics.prompt_format import FormEffect, form_effect
from forecast.analysis.diagnostics.run_data import Material, load_material
from forecast.analysis.diagnostics.sample_size import InstancesNeeded, instances_needed
from forecast.analysis.diagnostics.scoring_window import WINDOWS, Windowed, WindowEffect
from forecast.analysis.diagnostics.selection import Selection, select
from forecast.analysis.diagnostics.ties import TieShare, tie_share
from forecast.analysis.diagnostics.tokenizer_effect import TokenizerEffect, tokenizer_effect
from forecast.config.schema import Config
from forecast.errors import fault_of
from forecast.inputs.trajectories import Trajectory, load_trajectories, merge_sources
from forecast.report.records import record_of
from forecast.runs.progress import WorkProgress

if TYPE_CHECKING:
    from forecast.report.document import Document


Watch = Callable[[str], WorkProgress]  # given what is being done, in a few words
_SILENT = partial(WorkProgress, Console(quiet=True, force_terminal=False))


@dataclass(frozen=True)
class DiagnoseOptions:
    """Options of `diagnose`."""

    proxies: tuple[str, ...] = ()  # none: plain cross-entropy and the run's leading proxy
    windows: tuple[int, ...] = WINDOWS
    min_k_percent: float = 20.0
    corpus: tuple[str, ...] = ()
    corpus_column: str = "text"
    ngram: int = 13
    unit: NgramUnit = "words"


@dataclass(frozen=True)
class DiagnoseResult:
    """The answer of `forecast diagnose`."""

    name: str
    proxies: tuple[str, ...]
    confidence: float
    seed: int
    expert_overlap: tuple[ExpertOverlap, ...]
    expert_agreement: ExpertAgreement
    ties: tuple[TieShare, ...]
    windows: tuple[WindowEffect, ...]
    prompt_forms: FormEffect
    tokenizers: TokenizerEffect
    instances_needed: tuple[InstancesNeeded, ...]
    min_k: MinKResult
    contamination: Contamination
    warnings: tuple[str, ...]
    failed: tuple[dict[str, str], ...]

    def report(self, source: str = "") -> "Document":
        """`.save("report.html")`, and HTML in a notebook; `source` names the data in the title."""
        from forecast.analysis.diagnostics.report import document

        return document(self, source or None)

    def frames(self) -> dict[str, pl.DataFrame]:
        """A frame for each table; see `frames`."""
        from forecast.analysis.diagnostics.frames import frames_of

        return frames_of(self)

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        record: dict[str, Any] = record_of(self)
        return record


def diagnose(
    db: duckdb.DuckDBPyConnection,
    config: Config,
    options: DiagnoseOptions,
    watch: Watch = _SILENT,
) -> DiagnoseResult:
    """All checks of a run's ranking, from its warehouse and lake.

    Args:
        db: the run's open warehouse.
        watch: makes a progress display, once for each of the long parts.

    Raises:
        NoDataError: nothing to rank by.
        InputError: a file of the lake is gone or damaged.
        ConfigError: no such proxy.
    """
    material = load_material(db, config)
    population = material.population
    selection = select(population, config.ranking, options.proxies)
    ties, values, windows = _lake(material, selection, options, watch)
    found, failed = _contamination(material, selection, options, watch)
    return DiagnoseResult(
        name=config.name,
        proxies=selection.proxies,
        confidence=selection.confidence,
        seed=selection.seed,
        expert_overlap=expert_overlap(population, selection, config.experts),
        expert_agreement=expert_agreement(population, selection),
        ties=ties,
        windows=windows,
        prompt_forms=form_effect(population, material.members, selection),
        tokenizers=tokenizer_effect(db, population, selection),
        instances_needed=tuple(
            instances_needed(population, question, proxy, selection)
            for question in selection.questions
            for proxy in selection.proxies
        ),
        min_k=values,
        contamination=found,
        warnings=tuple(_warnings(material)),
        failed=tuple(failed),
    )


def _lake(
    material: Material, selection: Selection, options: DiagnoseOptions, watch: Watch
) -> tuple[tuple[TieShare, ...], MinKResult, tuple[WindowEffect, ...]]:
    """What one pass over all token rows gives."""
    windowed = [Windowed(n, material) for n in sorted(set(options.windows))]
    ties: dict[tuple[str, str], TieShare] = {}
    values: dict[tuple[str, str], tuple[float, int]] = {}
    done, total = 0, sum(rows for group in material.groups for _, rows in group.files)
    with watch("reading the lake") as progress:
        for group, tokens in material.tokens():
            if not tokens.is_empty():
                for name in group.names:
                    ties[name, group.task] = tie_share(name, group.dtype, group.task, tokens)
                    values[name, group.task] = min_k(tokens, options.min_k_percent)
                for window in windowed:
                    window.add(tokens, group.vocab_size)
            done += sum(rows for _, rows in group.files)
            progress.advance(done, total)
    names = material.population.candidates
    ordered = tuple(ties[name, task] for name in names for task in material.population.proxies)
    compared = MinKResult(options.min_k_percent, compare_min_k(values, names))
    return ordered, compared, tuple(window.effect(selection) for window in windowed)


def _contamination(
    material: Material, selection: Selection, options: DiagnoseOptions, watch: Watch
) -> tuple[Contamination, list[dict[str, str]]]:
    if not options.corpus:
        return not_searched("no corpus was given; --corpus FILE looks the trajectories up in one"), []
    failed: list[dict[str, str]] = []
    trajectories = _trajectories(material, failed)
    if not trajectories:
        return not_searched("no trajectory could be read"), failed
    done = CorpusProgress()
    population = material.population
    try:
        files = corpus_files(list(options.corpus))
        with watch("reading the corpus") as bar:
            pieces = read_corpus(
                files, options.corpus_column, done, lambda now: bar.advance(now.bytes_done, now.bytes_total)
            )
            found = contamination(
                trajectories, pieces, done, options.ngram, options.unit, population, selection
            )
    except BaseException as error:
        corpus = ", ".join(options.corpus)
        failed.append({"corpus": corpus, "error": fault_of(error, corpus)})
        return not_searched(failed[-1]["error"]), failed
    return found, failed


def _trajectories(material: Material, failed: list[dict[str, str]]) -> list[Trajectory]:
    """Those that the ranking rests on."""
    found: list[Trajectory] = []
    config = material.config
    for task, proxies in material.population.proxies.items():
        sources = [source for source in config.trajectories if source.task == task]
        read = {(expert, proxies.instances[i]) for expert, own in proxies.experts.items() for i in own.index}
        try:
            loaded = merge_sources((source.label, load_trajectories(source)) for source in sources)
        except BaseException as error:
            failed.append({"task": task, "error": fault_of(error, f"task {task!r}")})
            continue
        kept = [t for t in loaded if (t.expert, t.instance_id) in read]
        if len(kept) < len(read):
            gone = f"{len(read) - len(kept)} of {len(read)} solutions that were scored"
            text = f"task {task!r}: {gone} are no longer in its files, so they are not looked up"
            failed.append({"task": task, "error": text})
        found += kept
    return found


def _warnings(material: Material) -> list[str]:
    known = sorted({name for task in material.population.proxies.values() for name in task.experts})
    if not (unknown := [name for name in material.config.experts if name not in known]):
        return []
    return [
        f"experts of the configuration that no trajectory names: {', '.join(unknown)}; there are: "
        f"{', '.join(known)}"
    ]
