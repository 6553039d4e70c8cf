"""A report as JSON: the same figures as the tables and the page."""

import math
from typing import Any

from forecast.analysis.checkpoints.forecast import Report
from forecast.analysis.checkpoints.forecast_run import RunForecast
from forecast.analysis.checkpoints.methods import METHODS


def report_record(report: Report, source: str, members: bool = False) -> dict[str, Any]:
    """All of a report.

    Args:
        members: also the rows of what the combination is made of.
    """
    hidden = set() if members else {method.name for method in METHODS if method.kind == "member"}
    asked = report.question
    return {
        "source": source,
        "target": asked.target,
        "proxies": list(asked.proxies),
        "cross_entropy": report.loss,
        "fit_until": asked.fit_until,
        "axis": report.axis,
        "confidence": asked.confidence,
        "rows": [row.as_record() for row in report.rows if row.method not in hidden],
        "summary": [line.as_record() for line in report.summary if line.method not in hidden],
        "verdicts": list(report.verdicts),
        "runs": [_run_record(found) for found in report.forecasts],
        "decisions": report.decisions.as_record(),
        "methods": {m.name: m.about for m in METHODS if m.name not in hidden},
        "warnings": list(report.warnings),
        "failed": list(report.failed),
    }


def _run_record(found: RunForecast) -> dict[str, Any]:
    combination = found.combination
    return {
        "run": found.run,
        "window_ends_at_step": found.step_end,
        "rolling_origins": [_short(origin.u * found.step_end) for origin in found.origins],
        "proxy": combination.proxy,
        "weights": {str(key): round(weight, 6) for key, weight in combination.weights.items()},
        "relative_squared_errors": {str(key): _short(value) for key, value in combination.errors.items()},
        "tasks_that_decided": combination.n_tasks,
        "macro": found.macro,
        "left_out": {task: own.left_out for task, own in found.tasks.items() if own.left_out is not None},
        "parameters": {
            task: {str(key): _parameters(fit.parameters) for key, fit in own.fits.items() if fit.parameters}
            for task, own in found.tasks.items()
        },
    }


def _parameters(parameters: Any) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in parameters.items()}


def _short(value: float) -> float:
    return float(f"{value:.6g}")
