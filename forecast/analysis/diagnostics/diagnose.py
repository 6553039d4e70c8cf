"""All diagnostics of one run, in one pass over its lake."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import duckdb
import polars as pl

from forecast.analysis.diagnostics.contamination import Contamination, contamination, not_searched
from forecast.analysis.diagnostics.corpus_reader import CorpusProgress, corpus_files, read_corpus
from forecast.analysis.diagnostics.expert_agreement import ExpertAgreement, expert_agreement
from forecast.analysis.diagnostics.family_bias import ExpertOverlap, expert_overlap
from forecast.analysis.diagnostics.min_k_prob import MinK, compare_min_k, min_k
from forecast.analysis.diagnostics.ngram_index import Unit
from forecast.analysis.diagnostics.prompt_format import FormEffect, form_effect
from forecast.analysis.diagnostics.run_data import Material, load_material
from forecast.analysis.diagnostics.sample_size import InstancesNeeded, instances_needed
from forecast.analysis.diagnostics.scoring_window import WINDOWS, Windowed, WindowEffect, window_effect
from forecast.analysis.diagnostics.selection import Selection, select
from forecast.analysis.diagnostics.ties import TieShare, tie_share
from forecast.analysis.diagnostics.tokenizer_effect import TokenizerEffect, tokenizer_effect
from forecast.config.schema import Config
from forecast.errors import ForecastError
from forecast.inputs.trajectories import Trajectory, load_trajectories, merge_sources
from forecast.report.records import record_of

if TYPE_CHECKING:
    from forecast.report.document import Document


class Advancing(Protocol):
    """A progress display."""

    def advance(self, done: float, total: float) -> None:
        """`done` of `total` is done, in any unit."""


Watch = Callable[[str], AbstractContextManager[Advancing]]  # given what is being done, in a few words


class _Nobody:
    def advance(self, done: float, total: float) -> None:
        pass


def _unwatched(_: str) -> AbstractContextManager[Advancing]:
    return nullcontext(_Nobody())


@dataclass(frozen=True)
class DiagnoseOptions:
    """Options of `diagnose`."""

    proxies: tuple[str, ...] = ()  # none: plain cross-entropy and the run's leading proxy
    windows: tuple[int, ...] = WINDOWS
    min_k_percent: float = 20.0
    corpus: tuple[str, ...] = ()
    corpus_column: str = "text"
    ngram: int = 13
    unit: Unit = "words"


@dataclass(frozen=True)
class DiagnoseResult:
    """The answer of `forecast diagnose`."""

    name: str
    options: DiagnoseOptions
    proxies: tuple[str, ...]
    confidence: float
    seed: int
    experts: tuple[ExpertOverlap, ...]
    agreement: ExpertAgreement
    ties: tuple[TieShare, ...]
    windows: tuple[WindowEffect, ...]
    forms: FormEffect
    tokenizers: TokenizerEffect
    instances: tuple[InstancesNeeded, ...]
    min_k: tuple[MinK, ...]
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
        return {
            "name": self.name,
            "proxies": list(self.proxies),
            "confidence": self.confidence,
            "seed": self.seed,
            "expert_overlap": record_of(self.experts),
            "expert_agreement": record_of(self.agreement),
            "ties": record_of(self.ties),
            "windows": record_of(self.windows),
            "prompt_forms": record_of(self.forms),
            "tokenizers": record_of(self.tokenizers),
            "instances_needed": [i.as_record() for i in self.instances],
            "min_k": {
                "percent": self.options.min_k_percent,
                "values": record_of(self.min_k),
                "min_k_plus_plus": None,
                "min_k_plus_plus_reason": "it needs the variance of the log-probabilities over the "
                "vocabulary, which the lake's five statistics do not hold",
            },
            "contamination": record_of(self.contamination),
            "warnings": list(self.warnings),
            "failed": list(self.failed),
        }


def diagnose(
    db: duckdb.DuckDBPyConnection,
    config: Config,
    options: DiagnoseOptions,
    watch: Watch = _unwatched,
) -> DiagnoseResult:
    """Everything that the warehouse and the lake of a run can say about its ranking.

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
        options=options,
        proxies=selection.proxies,
        confidence=selection.confidence,
        seed=selection.seed,
        experts=expert_overlap(population, selection, config.experts),
        agreement=expert_agreement(population, selection),
        ties=ties,
        windows=windows,
        forms=form_effect(population, material.members, selection),
        tokenizers=tokenizer_effect(db, population, selection),
        instances=tuple(
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
) -> tuple[tuple[TieShare, ...], tuple[MinK, ...], tuple[WindowEffect, ...]]:
    """What one pass over all token rows gives."""
    windowed = [Windowed(n, material.longest) for n in sorted(set(options.windows))]
    ties: dict[tuple[str, str], TieShare] = {}
    values: dict[tuple[str, str], tuple[float, int]] = {}
    dtypes = {m.name: m.dtype for m in material.members}
    done, total = 0, sum(rows for group in material.groups for _, rows in group.files)
    with watch("reading the lake") as progress:
        for group, tokens in material.tokens():
            if not tokens.is_empty():
                for name in material.names(group.candidate_id):
                    ties[name, group.task] = tie_share(name, dtypes[name], group.task, tokens)
                    values[name, group.task] = min_k(tokens, options.min_k_percent)
                for window in windowed:
                    window.add(tokens, material.vocab_size(group.candidate_id))
            done += sum(rows for _, rows in group.files)
            progress.advance(done, total)
    names = [m.name for m in material.members]
    effects = tuple(window_effect(window, material.population, selection) for window in windowed)
    for window in windowed:
        window.close()
    ordered = tuple(ties[name, task] for name in names for task in material.population.proxies)
    return ordered, compare_min_k(values, names), effects


def _contamination(
    material: Material, selection: Selection, options: DiagnoseOptions, watch: Watch
) -> tuple[Contamination, list[dict[str, str]]]:
    if not options.corpus:
        return not_searched("no corpus was given; --corpus FILE looks the trajectories up in one"), []
    failed: list[dict[str, str]] = []
    trajectories = _trajectories(material, failed)
    if not trajectories:
        return not_searched("no trajectory could be read"), failed
    reading = CorpusProgress()
    try:
        files = corpus_files(list(options.corpus))
        with watch("reading the corpus") as progress:
            pieces = read_corpus(
                files,
                options.corpus_column,
                reading,
                lambda now: progress.advance(now.bytes_done, now.bytes_total),
            )
            found = contamination(
                trajectories, pieces, reading, options.ngram, options.unit, material.population, selection
            )
    except ForecastError as error:
        failed.append({"corpus": ", ".join(options.corpus), "error": str(error)})
        return not_searched(str(error)), failed
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
        except ForecastError as error:
            failed.append({"task": task, "error": str(error)})
            continue
        kept = [t for t in loaded if (t.expert, t.instance_id) in read]
        if len(kept) < len(read):
            failed.append(
                {
                    "task": task,
                    "error": f"task {task!r}: {len(read) - len(kept)} of {len(read)} solutions that were "
                    "scored are no longer in its files, so they are not looked up",
                }
            )
        found += kept
    return found


def _warnings(material: Material) -> list[str]:
    known = {name for task in material.population.proxies.values() for name in task.experts}
    unknown: Sequence[str] = [name for name in material.config.experts if name not in known]
    if not unknown:
        return []
    return [
        f"experts of the configuration that no trajectory names: {', '.join(unknown)}; there are: "
        f"{', '.join(sorted(known))}"
    ]
