"""Made-up nights: a training run of three checkpoints a night, forecast every night."""

from dataclasses import replace
from typing import Any

from forecast.nightly.best_so_far import Series, best_of, compare
from forecast.nightly.comparisons import sign_of
from forecast.nightly.records import (
    Alert,
    BestSoFar,
    Broken,
    Checkpoint,
    Comparison,
    EndForecast,
    Night,
    Value,
    Waiting,
    WatchedRun,
)

DAYS = [f"2026-11-{day:02d}" for day in range(10, 30)]
FINAL = 100_000


def checkpoint(step: int, run: str = "olmo") -> Checkpoint:
    return Checkpoint(run, step, f"{run} @ {step}", f"/checkpoints/{run}/step_{step}")


def end(
    forecast: float, fit_until: int, half: float = 0.05, task: str = "macro", run: str = "olmo", **other: Any
) -> EndForecast:
    """A forecast for the end of training with an interval of this half-width."""
    made = EndForecast(
        run, task, "acc", FINAL, fit_until, forecast, forecast - half, forecast + half, 0.9, "combined"
    )
    return replace(made, **other)


def series(
    values: list[float], metric: str = "cross_entropy__uniform", task: str = "gsm8k", run: str = "olmo"
) -> tuple[Value, ...]:
    """A value at each of the steps 1000, 2000, ..."""
    return tuple(Value(run, 1000 * (i + 1), task, metric, value) for i, value in enumerate(values))


def compared(values: tuple[Value, ...], error: float = 0.01) -> tuple[Comparison, ...]:
    """Each value with the best before it, by run and metric, where this is every value's standard error."""
    found: list[Comparison] = []
    for run, metric in dict.fromkeys((v.run, v.metric) for v in values):
        if (sign := sign_of(metric)) is None:
            continue
        own = [v for v in values if (v.run, v.metric) == (run, metric)]
        by_task = {
            task: Series(
                sign,
                {v.step: v.value for v in own if v.task == task},
                errors={v.step: error for v in own if v.task == task},
            )
            for task in dict.fromkeys(v.task for v in own)
        }
        found += compare(run, metric, by_task)
    return tuple(found)


def best_by(comparisons: tuple[Comparison, ...], run: str = "olmo", since: str = DAYS[0]) -> BestSoFar:
    """The best checkpoint of a run by the metric that comes first."""
    row = [c for c in comparisons if c.run == run and c.metric == comparisons[0].metric and c.overall]
    best = best_of(row, sign_of(row[0].metric) or 1)
    return BestSoFar(
        run, best.metric, best.task, f"{run} @ {best.step}", best.step, best.value, since, row[-1]
    )


def night(day: int, **facts: Any) -> Night:
    """The night of DAYS[day]."""
    return Night(DAYS[day], "team", **facts)


def nights_of(forecasts: list[EndForecast]) -> list[Night]:
    """One night for each forecast."""
    return [night(day, forecasts=(forecast,)) for day, forecast in enumerate(forecasts)]


def ranking() -> dict[str, Any]:
    """As `forecast rank --json` answers, without most of its correlations."""
    rho = {"proxy": "cross_entropy__uniform", "spearman": 0.81}

    def standing(rank: float, name: str, measured: float | None) -> dict[str, Any]:
        return {
            "candidate": name,
            "family": "olmo",
            "parameters": 1_000_000,
            "measured": measured,
            "measured_stderr": None if measured is None else 0.034567,
            "measured_rank": None if measured is None else rank,
            "forecast_rank": rank,
            "rank_low": 1.0,
            "rank_high": 2.0,
            "p_above_next": 0.75 if rank == 1 else None,
            "values": {"rank__uniform": 40.49 * rank, "cross_entropy__uniform": 1.919 + rank},
            "ranks": {"rank__uniform": rank, "cross_entropy__uniform": rank},
        }

    return {
        "leader": {"proxy": "rank__uniform", "scorer": None, "reason": "beats its null", "null_p": 0.01},
        "candidates": [standing(1.0, "olmo @ 3000", 0.405), standing(2.0, "another", None)],
        "proxies_shown": ["rank__uniform", "cross_entropy__uniform"],
        "targets": [
            {
                "target": "mean of measured tasks",
                "n_candidates": 3,
                "plain_cross_entropy": rho,
                "best": {"proxy": "rank__uniform", "spearman": 0.98},
                "best_of_80_p": 0.25,
            }
        ],
        "instances": {"gsm8k": 48},
        "confidence": 0.95,
        "warnings": ["intervals say nothing about other candidates"],
        "failed": [],
    }


def full_night(day: int = 2) -> Night:
    """A night that has something of everything."""
    values = (
        *series([3.25, 2.75, 2.5]),
        *series([0.61, 0.62, 0.63], "top1_accuracy__uniform"),
        *series([0.5, 0.5, 0.4], "entropy__uniform"),
        *series([0.25, 0.3125, 0.375], "acc", "sciq"),
    )
    comparisons = compared(values)
    return night(
        day,
        new=(checkpoint(3000), Checkpoint("hub", 7, "hub @ 7", "org/name", "step7")),
        waiting=(Waiting(checkpoint(4000), "no _SUCCESS in it yet"),),
        broken=(Broken(checkpoint(2500), "model.safetensors is cut short:\n1 of 2 bytes", DAYS[1]),),
        runs=(
            WatchedRun("olmo", (1000, 2000, 3000), DAYS[day], DAYS[0], FINAL),
            WatchedRun("hub", (), None, DAYS[0], None, "the hub cannot be reached"),
        ),
        values=values,
        best_so_far=(best_by(comparisons), BestSoFar("hub", reason="no checkpoint is scored yet")),
        comparisons=comparisons,
        forecasts=(end(0.5123, 3000), end(0.61, 3000, task="sciq")),
        not_forecast=({"run": "hub", "task": "macro", "error": "no checkpoints"},),
        ranking=ranking(),
        failed=({"candidate": "q4", "task": "gsm8k", "error": "too long"},),
        missed=(DAYS[1],),
    )


# Text that is markup wherever it is not escaped.
EVIL = (
    "a|b `x` <script>alert(1)</script>\n## h\r\n- *i* __j__ [k](javascript:1) ![](x) \\| &lt; "
    "\x00\x1b[31m\u202eend"
)
ALERT = Alert("nothing_new", "nothing_new/olmo/x", "olmo", "olmo: nothing.", {"days": 3, "problem": None})


def before() -> list[Night]:
    """Two nights before that of `full_night`."""
    return [
        night(0, forecasts=(end(0.50, 1000), end(0.6, 1000, task="sciq"))),
        night(1, forecasts=(end(0.56, 2000, half=0.03),)),
    ]
