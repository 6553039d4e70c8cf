"""A report as JSON: the same figures as the tables and the page."""

import math
from dataclasses import asdict
from typing import Any

from forecast.analysis.corpora.budget_choice import Purchase
from forecast.analysis.corpora.compare import Report
from forecast.analysis.corpora.pareto_frontier import Way, comes_first, frontiers_by_metric
from forecast.analysis.corpora.results import as_number
from forecast.analysis.corpora.targets import Target

ACCOUNTING = (
    "compute_fraction = (6 N D + 2 N T) / (6 N D of one target run), for one run of one corpus; "
    "N: parameters, "
    "active ones of a mixture of experts; D: training tokens up to the checkpoint; T: tokens "
    "read to score it, "
    "prompts included; cost_fraction: of all runs of one corpus; making experts' solutions is listed apart"
)


def report_record(report: Report, source: str) -> dict[str, Any]:
    """All of a report."""
    targets, accounting = report.targets, report.accounting
    return {
        "source": source,
        "target": {
            "metric": targets.metric,
            "direction": report.directions[targets.metric].words,
            "size": accounting.target_size,
            "parameters": _number(accounting.target_parameters),
            "tokens": _number(accounting.target_tokens),
            "training_flops": _number(accounting.target_flops),
            "tasks": [_target_record(target) for target in targets.tasks],
        },
        "corpora": list(report.panel.corpora),
        "confidence": report.options.confidence,
        "rows": [row.as_record() for row in report.rows],
        "noise_ceilings": [asdict(ceiling) for ceiling in report.ceilings],
        "frontiers": {task: [way_record(way) for way in ways] for task, ways in report.frontiers.items()},
        "frontiers_by_metric": {
            task: {
                metric: [way_record(way) for way in own]
                for metric, own in frontiers_by_metric(
                    [way for way in ways if comes_first(way, accounting.target_size)]
                ).items()
            }
            for task, ways in report.ways.items()
        },
        "best_of_many": [_best_record(task, report) for task in report.best],
        "purchases": [_purchase_record(purchase) for purchase in report.purchases],
        "scaling_laws": [row.as_record() for row in report.laws],
        "accounting": {
            "formula": ACCOUNTING,
            "source": accounting.source,
            "expert_flops": accounting.expert_flops,
            "expert_fraction": None
            if accounting.expert_flops is None
            else _number(accounting.expert_flops / accounting.target_flops),
        },
        "directions": {name: direction.words for name, direction in sorted(report.directions.items())},
        "warnings": list(report.warnings),
    }


def way_record(way: Way) -> dict[str, Any]:
    """A way to decide, without its standings."""
    return {
        "metric": way.metric,
        "kind": way.kind,
        "size": as_number(way.size),
        "step": as_number(way.step),
        "n_runs": way.n_runs,
        "cost_fraction": way.cost,
        "decision_accuracy": way.accuracy,
    }


def _target_record(target: Target) -> dict[str, Any]:
    return {
        "task": target.task,
        "macro": target.macro,
        "mean_of": list(target.made_of),
        "seeds": [as_number(seed) for seed in target.by_seed],
        "n_corpora": sum(math.isfinite(value) for value in target.mean),
    }


def _best_record(task: str, report: Report) -> dict[str, Any]:
    best, row = report.best[task]
    return {
        "task": task,
        "metric": row.metric,
        "size": as_number(row.size),
        "step": as_number(row.step),
        "decision_accuracy": best.accuracy,
        "n_rows": best.n_rows,
        "p": best.null.p,
        "null_mean": best.null.mean,
        "null_95": best.null.q95,
        "permutations": best.null.n,
    }


def _purchase_record(purchase: Purchase) -> dict[str, Any]:
    regret = purchase.regret
    return {
        "task": purchase.task,
        "budget": purchase.budget,
        "way": None if purchase.way is None else way_record(purchase.way),
        "regret": None
        if regret is None
        else {
            key: _number(value)
            if isinstance(value, float)
            else list(value)
            if isinstance(value, tuple)
            else value
            for key, value in asdict(regret).items()
        },
        "bought_again": purchase.bought_again,
        "expected_regret_anew": None if purchase.expected_anew is None else _number(purchase.expected_anew),
        "reason": None if purchase.way is not None else "nothing with a known cost is that cheap",
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
