"""A table's report as JSON; what does not exist is null, never 0."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from forecast.analysis.ranking.held_out import TableReport, chosen_counts
from forecast.analysis.ranking.held_out_metrics import Row
from forecast.analysis.ranking.permutation_null import Null
from forecast.analysis.ranking.results import Ranking, TargetReport


def report_record(report: TableReport, table: str) -> dict[str, Any]:
    """The whole report; `table` is the file's name."""
    best = report.best
    return {
        "table": table,
        "n_candidates": report.n_candidates,
        "n_families": report.n_families,
        "n_tasks": report.n_tasks,
        "n_features": report.n_features,
        "rows": [_row(row) for row in report.rows],
        "comparisons": [asdict(comparison) for comparison in report.comparisons],
        "ranking": None if report.order is None else asdict(report.order),
        "best_of_features": None
        if best is None
        else {
            "feature": best.feature,
            "mean_spearman": best.rho,
            "mean_abs_spearman": best.mean_abs_rho,
            "n_features": best.n_features,
            **_null(best.null),
        },
        "options": asdict(report.options),
        "versions": report.versions,
        "warnings": list(report.warnings),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "scorer": row.scorer,
        "protocol": row.protocol,
        "spearman": row.spearman,
        "ci_low": row.ci_low,
        "ci_high": row.ci_high,
        **_null(row.null),
        "tau_b": row.tau_b,
        "weighted_tau": row.weighted_tau,
        "partial_spearman": row.partial,
        "n_candidates": row.n_candidates,
        "n_families": row.n_families,
        "n_tasks": row.n_tasks,
        "n_folds": row.n_folds,
        "n_rhos": row.n_panels,
        "n_undefined": row.n_undefined,
        "smallest_detectable_rho": row.smallest_detectable_rho,
        "chosen": chosen_counts(row.chosen),
        "reason": row.reason,
    }


def _null(null: Null) -> dict[str, Any]:
    return {"null_p": null.p, "null_mean": null.mean, "null_q95": null.q95, "n_permutations": null.n}


def rank_record(ranking: Ranking, failures: Iterable[dict[str, str]] = ()) -> dict[str, Any]:
    """A ranking with every correlation behind it."""
    return {
        "candidates": [standing.as_record() for standing in ranking.standings],
        "proxies_shown": list(ranking.shown),
        "targets": [_target_record(report) for report in ranking.reports],
        "instances": ranking.n_instances,
        "confidence": ranking.confidence,
        "warnings": list(ranking.warnings),
        "failed": list(failures),
    }


def _target_record(report: TargetReport) -> dict[str, Any]:
    best = report.best()
    return {
        "target": report.target,
        "proxies_of": list(report.tasks),
        "n_candidates": report.n_candidates,
        "n_items": report.n_items,
        "plain_cross_entropy": report.plain_cross_entropy().as_record(),
        "best": best.as_record() if best else None,
        "best_of_80_p": report.best_p,
        "best_of_80_null_mean": report.best_null_mean,
        "correlations": [c.as_record() for c in report.correlations],
    }
