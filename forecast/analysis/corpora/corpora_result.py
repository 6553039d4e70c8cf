"""What `forecast corpora` is asked and what it answers: options, result, and the result's frames."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from forecast.analysis.corpora.bootstrap import BestOfMany
from forecast.analysis.corpora.budget_choice import BudgetChoice
from forecast.analysis.corpora.choose import CorpusRanking
from forecast.analysis.corpora.compute_cost import Accounting, Given
from forecast.analysis.corpora.corpus_ranking import CorpusPlace, PairChance
from forecast.analysis.corpora.noise_ceiling import Ceiling
from forecast.analysis.corpora.observation_arrays import Panel, Step
from forecast.analysis.corpora.pareto_frontier import FrontierPoint, Way
from forecast.analysis.corpora.results import DecisionRow, as_number
from forecast.analysis.corpora.scaling_law_rows import LawRow
from forecast.analysis.corpora.targets import Targets
from forecast.proxies.metric_direction import Direction
from forecast.report.records import frame_of, frame_with

if TYPE_CHECKING:
    from forecast.report.document import Document

# Columns of frames; see `frame_with`.
_WAY = "metric:s kind:s size:s step:s n_runs:i cost_fraction:f decision_accuracy:f"
_BEST = (
    "task:s metric:s size:s step:s decision_accuracy:f ci_low:f ci_high:f n_rows:i permutations:i "
    "p:f null_mean:f null_95:f noise_ceiling:f"
)
_CHOICE = (
    f"task:s budget:f {_WAY} regret:f resampled:f low:f high:f resampled_rechosen:f random:f chosen_again:f "
    "first:s best:s"
)
_FORECAST = "law:s metrics:s task:s sizes:s corpus:s predicted:f error:s"


@dataclass(frozen=True)
class CorporaOptions:
    """What a user may choose."""

    higher: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    target_metric: str | None = None
    budgets: tuple[float, ...] = ()  # shares of one target run's compute
    given: Given = field(default_factory=Given)
    laws: bool = True
    losses: tuple[str, ...] = ()  # metrics that scaling laws are fitted to; (): cross-entropies by their name
    bootstraps: int = 1000
    permutations: int = 1000
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class CorporaResult:
    """Decision accuracies, their frontier and scaling laws, and the choice within each budget."""

    ranking: CorpusRanking | None  # None: no metric of known direction below the target's size
    targets: Targets
    panel: Panel
    directions: dict[str, Direction]
    accounting: Accounting
    options: CorporaOptions
    rows: tuple[DecisionRow, ...]
    ceilings: tuple[Ceiling, ...]
    frontiers: dict[str, tuple[FrontierPoint, ...]]  # by task
    ways: dict[str, tuple[Way, ...]]  # by task, all of them
    best: dict[str, tuple[BestOfMany, DecisionRow]]  # by task
    laws: tuple[LawRow, ...]
    choices: tuple[BudgetChoice, ...]
    warnings: tuple[str, ...]

    def report(self, source: str = "table") -> "Document":
        """`.save("report.html")`, and HTML in a notebook; `source` names the data in the title."""
        from forecast.analysis.corpora.report import document

        return document(self, source)

    def as_record(self, source: str = "table") -> dict[str, Any]:
        """All of it as JSON; `source` names the data."""
        from forecast.analysis.corpora.report import record

        return record(self, source)

    def frames(self) -> dict[str, pl.DataFrame]:
        """`corpora` (the ranking, the best first), `corpus_pairs` (the leading ones two by two),
        `decisions`, `best_of_many` (a row per task),
        `noise_ceilings`, `noise_ceiling_seeds`, `frontiers`,
        `budget_choices`, `scaling_laws` and `scaling_law_forecasts` (a row per law and corpus).

        Costs are shares of one target run's compute, regrets are in the target metric's unit, steps are text
        because of the value `final`.
        """
        decisions = frame_of(self.rows, DecisionRow)
        laws = frame_of(self.laws, LawRow).drop("predicted", "failed")
        return {
            **ranking_frames(self.ranking),
            "decisions": decisions.with_columns(
                step=pl.Series([step_text(row.step) for row in self.rows], dtype=pl.String)
            ),
            "best_of_many": _frame((self.best_record(target.task) for target in self.targets.tasks), _BEST),
            "noise_ceilings": frame_of(self.ceilings, Ceiling).drop("by_seed"),
            "noise_ceiling_seeds": frame_with(
                ((c.task, *seed) for c in self.ceilings for seed in c.by_seed.items()),
                "task:s seed:s decision_accuracy:f",
            ),
            "frontiers": _frame(
                (
                    {"task": task} | point_record(point)
                    for task, points in self.frontiers.items()
                    for point in points
                ),
                f"task:s {_WAY} gain:f gain_low:f gain_high:f n_equal:i equal_metrics:s",
            ),
            "budget_choices": _frame(map(_choice, self.choices), _CHOICE),
            "scaling_laws": laws.with_columns(
                n_failed=pl.Series([len(row.failed) for row in self.laws], dtype=pl.Int64)
            ),
            "scaling_law_forecasts": _frame((one for row in self.laws for one in _forecasts(row)), _FORECAST),
        }

    def best_record(self, task: str) -> dict[str, Any]:
        """The best row of a task and its permutation null; the noise ceiling alone where there is none."""
        ceiling = next(c.decision_accuracy for c in self.ceilings if c.task == task)
        if task not in self.best:
            return {"task": task, "noise_ceiling": ceiling}
        best, row = self.best[task]
        return {
            "task": task,
            "metric": row.metric,
            "size": row.size,
            "step": step_text(row.step),
            "decision_accuracy": best.accuracy,
            "n_rows": best.n_rows,
            "p": best.null.p,
            "null_mean": best.null.mean,
            "null_95": best.null.q95,
            "permutations": best.null.n,
            "ci_low": row.ci_low,
            "ci_high": row.ci_high,
            "noise_ceiling": ceiling,
        }


@dataclass(frozen=True)
class CorporaChoice:
    """The ranking of corpora without targets."""

    ranking: CorpusRanking | None  # None: no metric of known direction
    options: CorporaOptions
    warnings: tuple[str, ...]

    def report(self, source: str = "table") -> "Document":
        """`.save("report.html")`, and HTML in a notebook; `source` names the data in the title."""
        from forecast.analysis.corpora.choice_report import document

        return document(self, source)

    def as_record(self, source: str = "table") -> dict[str, Any]:
        """All of it as JSON; `source` names the data."""
        from forecast.analysis.corpora.choice_report import record

        return record(self, source)

    def frames(self) -> dict[str, pl.DataFrame]:
        """`corpora`, the best first, and `corpus_pairs`, the leading ones two by two."""
        return ranking_frames(self.ranking)


def ranking_frames(ranking: CorpusRanking | None) -> dict[str, pl.DataFrame]:
    """`corpora`: a row per corpus, the best first; `corpus_pairs`: a row for every two of the ten leading."""
    return {
        "corpora": frame_of(ranking.places if ranking else (), CorpusPlace),
        "corpus_pairs": frame_of(ranking.pairwise if ranking else (), PairChance),
    }


def step_text(step: Step) -> str | None:
    """A step as the text of its number; `final`; None: the final checkpoint of runs with a single one."""
    return None if step is None else str(as_number(step))


def way_record(way: Way) -> dict[str, Any]:
    """What a way is and how it decides; size and step as text."""
    return {
        "metric": way.metric,
        "kind": way.kind,
        "size": way.size,
        "step": step_text(way.step),
        "n_runs": way.n_runs,
        "cost_fraction": way.cost,
        "decision_accuracy": way.accuracy,
    }


def point_record(point: FrontierPoint) -> dict[str, Any]:
    """A point of the frontier: its way, what it gains, and which ways are equal to it."""
    metrics = dict.fromkeys(way.metric for way in point.equal if way.metric != point.way.metric)
    return {
        **way_record(point.way),
        **{name: getattr(point, name) for name in ("gain", "gain_low", "gain_high")},
        "n_equal": len(point.equal),
        "equal_metrics": ", ".join(metrics),
    }


def _choice(choice: BudgetChoice) -> dict[str, Any]:
    row: dict[str, Any] = {"task": choice.task, "budget": choice.budget}
    if choice.way is not None:
        row |= way_record(choice.way)
    row |= {"resampled_rechosen": choice.resampled_rechosen, "chosen_again": choice.chosen_again}
    if (regret := choice.regret) is not None:
        row |= {name: getattr(regret, name) for name in ("resampled", "low", "high", "random", "best")}
        row |= {"regret": regret.observed, "first": ", ".join(dict.fromkeys(regret.first))}
    return row


def _forecasts(row: LawRow) -> Iterable[dict[str, Any]]:
    head = {
        "law": row.law,
        "metrics": ", ".join(row.metrics),
        "task": row.task,
        "sizes": ", ".join(row.sizes),
    }
    for corpus, predicted in (row.predicted or {}).items():
        yield head | {"corpus": corpus, "predicted": predicted, "error": row.failed.get(corpus)}


def _frame(rows: Iterable[dict[str, Any]], columns: str) -> pl.DataFrame:
    """Dicts as a frame; a key that a row lacks is null, and so is NaN."""
    names = [column.split(":")[0] for column in columns.split()]
    return frame_with(([row.get(name) for name in names] for row in rows), columns).fill_nan(None)
