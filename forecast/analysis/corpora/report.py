"""The report of `forecast corpora`: the document, and the JSON with the same figures."""

from typing import Any

import numpy as np
import polars as pl

from forecast.analysis.corpora.budget_choice import BudgetChoice
from forecast.analysis.corpora.charts import frontier_chart
from forecast.analysis.corpora.choice_report import (
    agreed,
    answer,
    chances,
    next_step,
    ranking_record,
    ranking_section,
)
from forecast.analysis.corpora.corpora_result import CorporaResult, point_record, way_record
from forecast.analysis.corpora.metric_order import plainness
from forecast.analysis.corpora.observations_from_file import MEAN
from forecast.analysis.corpora.pareto_frontier import FrontierPoint, Way, comes_first, frontiers_by_metric
from forecast.analysis.corpora.results import DecisionRow, as_number
from forecast.analysis.stats.figures import number
from forecast.report.document import Chart, Column, Document, Paragraph, Part, Section, Table, Warning
from forecast.report.format import INTEGER, P_VALUE, PERCENT, Format, fixed, interval
from forecast.report.records import record_of

ACCOUNTING = (
    "compute_fraction = (6 N D + 2 N T) / (6 N D of one target run), for one run of one corpus; "
    "N: parameters that a token is multiplied with: without an input embedding that is not the output head "
    "too, active ones of a mixture of experts; D: training tokens up to the checkpoint; "
    "T: tokens read to score it, prompts included; cost_fraction: of all runs of one corpus; "
    "making experts' solutions is listed apart"
)
_CHANCE = 0.05  # a larger p of the best row may be chance
_MOST_SHORT = 10  # rows of a table on a terminal
_ONLY_IN_FRAMES = ("ci_low", "ci_high", "noise_ceiling")  # of the best row; JSON has them elsewhere
_MOST_RUNS = 5  # with a column each on a terminal
_MOST_ROWS = 600  # of the table of all rows
_SHARE = fixed(3)
_RHO = fixed(2, signed=True)
_SMALL = fixed(4)
_GAIN = fixed(3, signed=True)
_GAINS = Format(lambda low, high: f"[{low:+.2f}, {high:+.2f}]")
_FRACTION = Format(lambda value: f"{value:.2e}" if value < 0.1 else f"{value:.3g}", d3=".3~g")
_LABEL = Format(str)  # sizes, steps and seeds: text that stands on the right
_LIST = Format(", ".join, right=False)
_RANGE = Format(lambda sizes: f"{sizes[0]} to {sizes[-1]}", right=False)

_TASK, _METRIC = Column("task", "task"), Column("metric", "metric")
_SIZE, _STEP = Column("size", "size", _LABEL), Column("step", "step", _LABEL)
_COMPUTE = Column("compute_fraction", "compute", _FRACTION, "Of one run, as a share of one target run.")
_COST_HELP = "Compute of all runs of one corpus, as a share of one target run."
_COST = Column("cost_fraction", "cost", _FRACTION, _COST_HELP)
_RUNS = Column("n_runs", "runs", INTEGER, "Runs of each corpus.")
_ACCURACY_HELP = "Share of corpus pairs ordered as the target orders them; at chance: 0.5."
_ACCURACY = Column("decision_accuracy", "decision accuracy", _SHARE, _ACCURACY_HELP)
_CI_HELP = "Over corpora resampled with their runs, groups of them whole."
_SEED_HELP = "For the same corpora with other seeds."
_SPEARMAN = Column("spearman", "rho", _RHO, "Spearman's rank correlation with the target.")
_PAIRS = Column("n_pairs", "pairs", INTEGER)
_TIES = Column("n_ties", "ties", INTEGER, "Pairs tied in the target, left out.")
_REASON = Column("reason", "reason", help="Why a figure is missing.", wide_only=True)

_BEST = (
    _TASK,
    Column("metric", "best metric"),
    _SIZE,
    _ACCURACY,
    Column("ci_low", "interval", interval(2), also=("ci_high",)),
    Column("p", "p (max statistic)", P_VALUE, "Permutation null of the best of as many rows."),
    Column("null_mean", "null mean", _SHARE, "The best of as many rows, mean over the permutations."),
    Column("noise_ceiling", "ceiling", _SHARE, "Each seed of the target against the mean of the others."),
    Column("null_95", "null 95 %", _SHARE, "The same, 95th percentile.", wide_only=True),
    Column("n_rows", "rows", INTEGER, "Rows compared, of which this is the best.", wide_only=True),
)
_BEST_CAPTION = (
    "The best mean of seeds below the target's size, selected post hoc. "
    "Null: the target's values are permuted over the corpora, for all rows alike."
)
_FRONTIER = (
    _METRIC,
    Column("n_equal", "equal", INTEGER, "Further ways of the same cost and decision accuracy."),
    Column("kind", "kind", wide_only=True),
    _SIZE,
    _STEP,
    _RUNS,
    _COST,
    _ACCURACY,
    Column("gain", "gain", _GAIN, "Decision accuracy above that of the row before."),
    Column("gain_low", "interval", _GAINS, "Of the gain, over resampled corpora.", also=("gain_high",)),
    Column("equal_metrics", "equal metrics", help="Metrics of the equal ways.", wide_only=True),
)
_CHOICES = (
    Column("budget", "budget", _FRACTION, "Share of the compute of one target run."),
    _METRIC,
    _SIZE,
    _STEP,
    _RUNS,
    Column("cost_fraction", "cost", _FRACTION, _COST_HELP, wide_only=True),
    _ACCURACY,
    Column("regret", "regret", _SMALL, "Target of the best corpus less that of the chosen one."),
    Column("resampled", "resampled regret", _SMALL, "Mean regret over resampled corpora of known targets."),
    Column("low", "interval", interval(4), "Of the regret, over resampled corpora.", True, ("high",)),
    Column("resampled_rechosen", "rechosen", _SMALL, "The same with the choice repeated in each resample."),
    Column("random", "at random", _SMALL, "Regret of a corpus taken at random."),
    Column("chosen_again", "chosen again", PERCENT, "Share of resamples with the same choice."),
    Column("first", "ranks first", help="Corpus that each of its runs ranks first.", wide_only=True),
)
_LAWS = (
    Column("law", "law"),
    Column("metrics", "fitted to", _LIST, wide_only=True),
    Column("sizes", "sizes", _RANGE),
    _COST,
    _ACCURACY,
    _SPEARMAN,
    Column("relative_error", "relative error", PERCENT),
    Column("absolute_error", "absolute error", _SMALL),
    Column("compared_with", "compared with", wide_only=True),
    Column("n_failed", "failed", INTEGER, "Corpora whose fit failed; such a law is not offered as a choice."),
    _REASON,
)


def document(result: CorporaResult, source: str) -> Document:
    """The answer, decision accuracies, frontier of each task, choices by budget, laws, all rows, notes.

    Args:
        source: the table or configuration, for the title.
    """
    frames, panel, targets = result.frames(), result.panel, result.targets
    main = targets.main.task
    sections = [
        Section("", tuple(map(Paragraph, _answer(result, main)))),
        *([ranking_section(result.ranking, result.options.confidence)] if result.ranking else []),
        Section("Decision accuracy", (_decisions(result, frames["decisions"], main),)),
        Section("Best row of each task", (_best_rows(frames["best_of_many"], main),)),
    ]
    for target in sorted(targets.tasks, key=lambda target: target.task != main):
        sections.append(_task(result, frames["frontiers"], target.task, target.task == main))
    choices = frames["budget_choices"].filter(task=main)
    if choices.height:
        caption = f"Choice within a budget and its regret, in {targets.metric} of {main}"
        choices = choices.with_columns(pl.col("metric").fill_null("none within the budget"))
        sections.append(
            Section("Budget-constrained choice", (Table(choices, _filled(choices, _CHOICES), caption),))
        )
    sections += _laws(result, frames["scaling_laws"], main)
    sections.append(_all_rows(result, frames["decisions"]))
    sections.append(Section("What is counted as compute", tuple(_accounting(result)), wide_only=True))
    if notes := [*_selected_post_hoc(result, main), *result.warnings]:
        sections.append(Section("Notes", tuple(map(Warning, notes))))
    size = result.accounting.target_size or "the target runs"
    n_groups = len(set(panel.groups))
    grouped = f" of {n_groups} groups" if n_groups < len(panel.corpora) else ""
    subtitle = (
        f"{len(panel.corpora)} corpora{grouped}, {len(panel.sizes)} sizes, {len(panel.metrics)} metrics, "
        f"{len(targets.tasks)} target tasks; target: {targets.metric} of {size}; seed {result.options.seed}"
    )
    return Document(f"Corpora of {source}", subtitle, tuple(sections))


def _answer(result: CorporaResult, task: str) -> list[str]:
    """Which corpus to choose, how sure that is, and what to do next."""
    ranking = result.ranking
    if ranking is None and result.options.budgets:
        priced = any(way.cost is not None for way in result.ways[task])
        return [
            f"No choice for {task}: {'nothing is within the budget' if priced else 'no compute is known'}.",
            f"Next: give {'a larger --budget' if priced else '--parameters and --training-tokens'}.",
        ]
    if ranking is None or task not in result.best:
        return [
            f"No choice for {task}: no metric of known direction orders two corpora with different targets.",
            "Next: see Notes for what is missing: corpora, different targets, --higher or --lower.",
        ]
    if ranking.over != "corpora":
        return [
            answer(ranking),
            f"How sure: {ranking.reason}{agreed(ranking)}.",
            f"Next: {next_step(ranking)}.",
        ]
    best, first = result.best[task][0], ranking.places[0]
    row = [r for r in result.rows if (r.metric, r.size) == (ranking.metric, ranking.size)]
    last = [r for r in row if (r.task, r.seed) == (task, MEAN)][-1]
    assert last.decision_accuracy is not None and first.expected_regret is not None
    least, known = last.decision_accuracy, ""
    if last.ci_low is not None and last.ci_high is not None:
        least, known = last.ci_low, f" {interval(2)(last.ci_low, last.ci_high)}"
    certain = least > 0.5 and (best.null.p is None or best.null.p <= _CHANCE) and first.rank < 2
    at_random = float(np.mean([place.expected_regret or 0.0 for place in ranking.places]))
    cost = (
        "" if last.cost_fraction is None else f", {_FRACTION(last.cost_fraction)} of a target run's compute"
    )
    runs = f"{last.n_seeds} runs" if (last.n_seeds or 1) > 1 else "1 run"
    selected = ""
    if best.n_rows > 1 and best.null.mean is not None:
        selected = f"; the best of {best.n_rows} rows by chance: {best.null.mean:.2f}"
    targets = {
        place.corpus: result.directions[ranking.unit].sign * place.measured
        for place in ranking.places
        if place.measured is not None
    }
    best_known = max(targets, key=lambda corpus: targets[corpus])
    return [
        f"Choose {first.corpus} for {task}: {chances(ranking)}; ranked by {ranking.basis}{cost}."
        if certain
        else f"No certain choice for {task}: {answer(ranking)}",
        f"How sure: decision accuracy {last.decision_accuracy:.3f}{known} (at chance: 0.5{selected}); "
        f"expected regret {_SMALL(first.expected_regret)} in {ranking.unit}, of a corpus taken at random "
        f"{_SMALL(at_random)}. The best of the known targets is {best_known}'s.",
        f"Next: train {runs} at {ranking.size} for every further corpus, and take the one ranked first"
        f"{_cheaper(result, task, last)}."
        if certain
        else "Next: do not decide by these runs, they may be at chance; a larger --budget or more seeds.",
    ]


def _filled(frame: pl.DataFrame, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Without a column of steps that are all final, or of ways that no other equals."""
    empty = {
        name
        for name in ("step", "n_equal", "equal_metrics")
        if name in frame.columns
        and not (frame[name].is_not_null() & ~frame[name].cast(pl.String).is_in(["", "0"])).any()
    }
    return tuple(column for column in columns if column.name not in empty)


def _cheaper(result: CorporaResult, task: str, row: DecisionRow) -> str:
    """The cheapest budget whose choice decides above chance, where it costs less than a tenth."""
    if row.cost_fraction is None:
        return ""
    for choice in result.choices:
        way = choice.way
        if choice.task != task or way is None or way.cost is None or way.cost > row.cost_fraction / 10:
            continue
        own = [
            r
            for r in result.rows
            if (r.metric, r.size, r.step, r.task) == (way.metric, way.size, way.step, task)
        ]
        if own and all(r.ci_low is not None and r.ci_low > 0.5 for r in own):
            return (
                f"; for less, --budget {choice.budget:g} ranks by {way.metric} at {way.size} (decision "
                f"accuracy {way.accuracy:.3f})"
            )
    return ""


def _selected_post_hoc(result: CorporaResult, task: str) -> list[str]:
    if task not in result.best:
        return []
    best, row = result.best[task]
    if best.n_rows < 2 or best.null.mean is None:
        return []
    return [
        f"{row.metric} at {row.size} is selected post hoc as the best of {best.n_rows} rows: its "
        f"{best.accuracy:.3f} is optimistically biased (permutation null of the best row: "
        f"{best.null.mean:.2f} on average, p = {best.null.p:.3f})"
    ]


def _decisions(result: CorporaResult, decisions: pl.DataFrame, task: str) -> Table:
    """The means over seeds of one task, with each seed's figure in a column of its own."""
    rows = decisions.filter(task=task)
    seen = set(zip(rows["variant"], rows["seed"], strict=True))
    runs = {
        f"{variant}, seed {seed}" if variant else f"seed {seed}": pl.col("seed").eq(seed)
        & pl.col("variant").eq_missing(variant or None)
        for variant, seed in zip(result.panel.variants, result.panel.seeds, strict=True)
        if (variant or None, seed) in seen
    }
    places = ["metric", "size", "step"]
    table = rows.filter(seed=MEAN)
    for name, is_run in runs.items():
        own = rows.filter(is_run).select(*places, pl.col("decision_accuracy").alias(name))
        table = table.join(own, on=places, how="left", nulls_equal=True, maintain_order="left")
    confidence = f"{100 * result.options.confidence:g}%"
    columns = (
        _METRIC,
        _SIZE,
        *((_STEP,) if rows["step"].n_unique() > 1 else ()),
        _COMPUTE,
        *(Column(name, name, _SHARE, _ACCURACY_HELP, wide_only=len(runs) > _MOST_RUNS) for name in runs),
        Column("decision_accuracy", "mean of seeds", _SHARE, _ACCURACY_HELP),
        Column("ci_low", f"{confidence} interval", interval(2), _CI_HELP, also=("ci_high",)),
        Column("seed_low", f"{confidence} seeds", interval(2), _SEED_HELP, also=("seed_high",)),
        _SPEARMAN,
        _PAIRS,
        _TIES,
    )
    ceiling = next(c for c in result.ceilings if c.task == task).decision_accuracy
    known = "" if ceiling is None else f"; noise ceiling {ceiling:.3f}"
    caption = (
        f"Against {result.targets.metric} of {task}: {len(result.panel.corpora)} corpora{known}; best first. "
        "Interval: over resampled corpora with their runs; seeds: the same corpora with other seeds."
    )
    order = {metric: k for k, metric in enumerate(sorted(result.panel.metrics, key=plainness))}
    table = table.sort(
        pl.col("size").eq_missing(result.accounting.target_size),
        pl.col("direction") == "learned",
        -pl.col("decision_accuracy"),
        "cost_fraction",
        pl.col("metric").replace_strict(order),
        nulls_last=True,
        maintain_order=True,
    )
    return Table(table, columns, caption, terminal_rows=_MOST_SHORT)


def _best_rows(rows: pl.DataFrame, task: str) -> Table:
    """The main task first, then the best."""
    ordered = rows.sort(
        pl.col("task") != task, -pl.col("decision_accuracy"), nulls_last=True, maintain_order=True
    )
    return Table(ordered, _BEST, _BEST_CAPTION, terminal_rows=_MOST_SHORT)


def _task(result: CorporaResult, frontiers: pl.DataFrame, task: str, is_main: bool) -> Section:
    parts: list[Part] = []
    if any(way.cost is not None for way in result.ways[task]):
        chart = Chart(
            lambda: frontier_chart(result, task),
            "Decision accuracy against the compute of all runs of one corpus, as a share of one target run. "
            "Lines: the Pareto frontier of each kind. Small dots: one run of each corpus; "
            "large: the mean over seeds. Dashed: noise ceiling, where seeds of the target are known.",
            f"Pareto frontier of decision accuracy on {task} against compute, by kind of metric",
        )
        parts.append(chart)
    own = frontiers.filter(task=task)
    if is_main and own.height:
        caption = "Pareto frontier: nothing that costs as much or less has a higher decision accuracy. " + (
            "Equal ways order as many pairs right for the same compute, so these corpora do not tell them "
            "apart; the plainest metric is named."
            if own["n_equal"].sum()
            else ""
        )
        columns = _filled(own, _FRONTIER)
        parts.append(Table(own, columns, caption.strip(), terminal_rows=_MOST_SHORT))
    return Section(f"Decisions about {task}", tuple(parts))


def _laws(result: CorporaResult, laws: pl.DataFrame, task: str) -> list[Section]:
    rows = laws.with_row_index("place").filter(task=task)
    if not rows.height:
        return []
    # Of each law the smallest, the best and the largest set of sizes; the smallest where none was fitted.
    places: list[int] = []
    for _, own in rows.group_by("law", "metrics", maintain_order=True):
        fitted = own.drop_nulls("decision_accuracy").sort(
            "decision_accuracy", descending=True, maintain_order=True
        )
        shown = [own["place"][0], fitted["place"][0], own["place"][-1]] if fitted.height else own["place"][:1]
        places += dict.fromkeys(shown)
    short = laws[places].with_columns(best=pl.col("decision_accuracy").max().over("law", "metrics"))
    short = short.sort(-pl.col("best"), nulls_last=True, maintain_order=True)
    caption = (
        "Fitted to the means over seeds of each corpus and extrapolated to the target's size; "
        "errors: mean over corpora. "
        "Of each law the smallest, the best (selected post hoc) and the largest set of sizes."
    )
    every = Table(rows, _LAWS, "Every set of sizes", wide_only=True)
    return [
        Section(
            f"Scaling laws for {task}", (Table(short, _LAWS, caption, terminal_rows=_MOST_SHORT - 1), every)
        )
    ]


def _all_rows(result: CorporaResult, decisions: pl.DataFrame) -> Section:
    is_mean = (pl.col("seed") == MEAN) & pl.col("n_seeds").is_not_null()
    seed = pl.when(is_mean).then(pl.format("{} of {}", "seed", "n_seeds")).otherwise("seed")
    kept = decisions.sort(-pl.col("decision_accuracy"), nulls_last=True, maintain_order=True).head(_MOST_ROWS)
    rows = (decisions if decisions.height <= _MOST_ROWS else kept).with_columns(seed=seed)
    grouped = len(set(result.panel.groups)) < len(result.panel.corpora)
    columns = (
        _TASK,
        _METRIC,
        _SIZE,
        *((_STEP,) if rows["step"].n_unique() > 1 else ()),
        *((Column("variant", "variant"),) if any(result.panel.variants) else ()),
        Column("seed", "seed"),
        _COMPUTE,
        _ACCURACY,
        Column("ci_low", "interval", interval(3), _CI_HELP, also=("ci_high",)),
        Column("seed_low", "seeds", interval(3), _SEED_HELP, also=("seed_high",)),
        _SPEARMAN,
        Column("n_corpora", "corpora", INTEGER),
        *((Column("n_groups", "groups", INTEGER),) if grouped else ()),
        _PAIRS,
        _TIES,
        Column("n_predicted_ties", "predicted ties", INTEGER, "Pairs tied by the metric; each counts 0.5."),
        _REASON,
    )
    left_out = decisions.height - rows.height
    caption = f"The best {_MOST_ROWS} of {decisions.height} rows" if left_out else ""
    return Section("All rows", (Table(rows, columns, caption),), wide_only=True)


def _accounting(result: CorporaResult) -> list[Paragraph]:
    parts, flops = [Paragraph(ACCOUNTING + ".")], result.accounting.expert_flops
    if flops is not None:
        share = flops / result.accounting.target_flops
        parts.append(Paragraph(f"Making the experts' solutions: {flops:.3g} FLOPs ({share:.2e}), once."))
    return parts


def record(result: CorporaResult, source: str) -> dict[str, Any]:
    """All of a result as JSON."""
    targets, accounting = result.targets, result.accounting
    flops = accounting.expert_flops
    return {
        "source": source,
        "target": {
            "metric": targets.metric,
            "direction": result.directions[targets.metric].words,
            "size": accounting.target_size,
            "parameters": number(accounting.target_parameters),
            "tokens": number(accounting.target_tokens),
            "training_flops": number(accounting.target_flops),
            "tasks": [
                {
                    "task": target.task,
                    "macro": target.macro,
                    "mean_of": list(target.made_of),
                    "seeds": list(map(as_number, target.by_seed)),
                    "n_corpora": int(np.isfinite(target.mean).sum()),
                }
                for target in targets.tasks
            ],
        },
        **ranking_record(result.ranking),
        "confidence": result.options.confidence,
        "rows": [row.as_record() for row in result.rows],
        "noise_ceilings": record_of(result.ceilings),
        "frontiers": {task: list(map(_point_record, own)) for task, own in result.frontiers.items()},
        "frontiers_by_metric": {
            task: {
                metric: [_way_record(point.way) | {"n_equal": len(point.equal)} for point in own]
                for metric, own in frontiers_by_metric(
                    [way for way in ways if comes_first(way, accounting.target_size)]
                ).items()
            }
            for task, ways in result.ways.items()
        },
        "best_of_many": [
            {key: value for key, value in result.best_record(task).items() if key not in _ONLY_IN_FRAMES}
            | _place(row)
            for task, (_, row) in result.best.items()
        ],
        "budget_choices": [_choice_record(choice) for choice in result.choices],
        "scaling_laws": list(map(record_of, result.laws)),
        "accounting": {
            "formula": ACCOUNTING,
            "source": accounting.source,
            "expert_flops": flops,
            "expert_fraction": None if flops is None else number(flops / accounting.target_flops),
        },
        "directions": {name: direction.words for name, direction in sorted(result.directions.items())},
        "warnings": list(result.warnings),
    }


def _way_record(way: Way) -> dict[str, Any]:
    return way_record(way) | _place(way)


def _point_record(point: FrontierPoint) -> dict[str, Any]:
    return {
        **point_record(point),
        **_place(point.way),
        "equal_metrics": list(dict.fromkeys(way.metric for way in point.equal)),
    }


def _place(of: Way | DecisionRow) -> dict[str, Any]:
    """Size and step as numbers where they are some."""
    return {"size": as_number(of.size), "step": as_number(of.step)}


def _choice_record(choice: BudgetChoice) -> dict[str, Any]:
    return {
        "task": choice.task,
        "budget": choice.budget,
        "way": None if choice.way is None else _way_record(choice.way),
        "regret": record_of(choice.regret),
        "chosen_again": choice.chosen_again,
        "resampled_regret_rechosen": record_of(choice.resampled_rechosen),
        "reason": None if choice.way is not None else "nothing with a known cost is that cheap",
    }
