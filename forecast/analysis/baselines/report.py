"""Benchmarks from other benchmarks, and from size alone: the result, its document and its JSON."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from forecast.analysis.baselines.held_out import MEAN, N_FOLDS, HeldOutRow, held_out_table
from forecast.analysis.baselines.size import Agreement, size_agreement
from forecast.inputs.published.observational_scaling import ScoreTable
from forecast.report.document import Column, Document, Paragraph, Section, Table, Warning
from forecast.report.format import INTEGER, fixed
from forecast.report.records import frame_of

_RHO = fixed(3, signed=True)


@dataclass(frozen=True)
class BenchmarksResult:
    """Every method on every target benchmark; `size_alone` pairs a target with a size as its predictor."""

    rows: tuple[HeldOutRow, ...]
    size_alone: tuple[tuple[str, Agreement], ...]
    folds: int
    warnings: tuple[str, ...] = ()

    def frames(self) -> dict[str, pl.DataFrame]:
        """Frames of the result.

        Returns:
            `benchmarks`: a row per target and method;
            `size_alone`: a row per target and size.
        """
        sizes = frame_of([agreement for _, agreement in self.size_alone], Agreement)
        targets = pl.Series("target", [target for target, _ in self.size_alone], pl.String)
        return {
            "benchmarks": frame_of(self.rows, HeldOutRow),
            "size_alone": sizes.insert_column(0, targets),
        }

    def report(self, source: str = "table") -> Document:
        """`.save("report.html")`, and HTML in a notebook; `source` names the data in the title."""
        return document(source, self)

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        sizes = [{"target": target, **asdict(agreement)} for target, agreement in self.size_alone]
        return {"rows": [asdict(row) for row in self.rows], "size_alone": sizes, "warnings": self.warnings}


def evaluate_benchmarks(
    table: ScoreTable,
    targets: Sequence[str] | None = None,
    *,
    folds: int = N_FOLDS,
    seed: int = 0,
    on_progress: Callable[[float, float], None] = lambda done, total: None,
) -> BenchmarksResult:
    """Forecast benchmarks from all others, and from size, for held-out families.

    Args:
        targets: benchmarks; None: each.
        folds: the families are held out in so many.
        seed: orders families of one size before they are assigned to folds.
        on_progress: called with the number of targets that are done, and of all.

    Raises:
        InputError: an unknown target, or fewer than two families.
    """
    wanted = tuple(dict.fromkeys(targets or table.benchmarks))
    rows: list[HeldOutRow] = []
    sizes: list[tuple[str, Agreement]] = []
    for done, name in enumerate(wanted):
        on_progress(done, len(wanted))
        rows += held_out_table(table, targets=[name], folds=folds, seed=seed)
        scores = table.scores[:, table.benchmarks.index(name)]
        for what, values in (("parameters", table.parameters), ("training FLOPs", table.flops)):
            sizes.append((name, size_agreement(what, values, scores)))
    return BenchmarksResult(tuple(rows), tuple(sizes), folds, table.warnings)


def _answer(result: BenchmarksResult) -> str:
    """The best forecast of each benchmark beside the best by size alone; the best are selected post hoc."""
    sizes = ("parameters", "training FLOPs")
    rows = [row for row in result.rows if row.rmse is not None]
    said = []
    for target in dict.fromkeys(row.target for row in rows):
        of_size = [row for row in rows if row.target == target and row.method in sizes]
        others = [row for row in rows if row.target == target and row.method not in (*sizes, MEAN)]
        if of_size and others:
            best, size = min(others, key=lambda r: r.rmse or 0.0), min(of_size, key=lambda r: r.rmse or 0.0)
            said.append(f"{target} {best.rmse:.3f} ({size.rmse:.3f})")
    if not said:
        return "No benchmark can be forecast both from others and from size. Next: see the reasons below."
    return (
        f"RMSE of the best forecast from other benchmarks, and by size alone in brackets: {', '.join(said)}. "
        "Next: a proxy must beat the former where such scores exist, the latter where they do not."
    )


def document(source: str, result: BenchmarksResult) -> Document:
    """The report on a table of published benchmark scores; `source` is its file."""
    frames = result.frames()
    target, rho = Column("target", "benchmark"), "Spearman's rho with the measured scores."
    methods = (
        target,
        Column("method", "from"),
        Column("rmse", "RMSE", fixed(3), "Root mean squared error, in score units (0..1)."),
        Column("spearman", "rho", _RHO, rho),
        Column("n_models", "models", INTEGER, "Models compared, the same for all methods."),
        Column("n_families", "families", INTEGER),
        Column("n_missing", "not compared", INTEGER, "Models with a score that some method cannot predict."),
        Column("reason", "reason for what is missing"),
    )
    sizes = (
        target,
        Column("predictor", "size"),
        Column("spearman", "rho", _RHO, rho),
        Column("n_models", "models", INTEGER, "Models with a known size and a score."),
        Column("n_unknown", "size unknown", INTEGER, "Models with a score and no known size."),
    )
    folds = min(result.folds, max(row.n_families for row in result.rows))  # no fold without a family
    held_out = f"Families held out in {folds} folds; all methods on the same models"
    parts = (
        Paragraph(_answer(result)),
        Table(frames["benchmarks"], methods, held_out, group_by="target"),
        Table(frames["size_alone"], sizes, "Size alone, without a fit", group_by="target"),
    )
    notes = tuple(Warning(text) for text in result.warnings)
    return Document(
        f"Ranking of {source}", "", (Section("Benchmarks from other benchmarks", (*parts, *notes)),)
    )
