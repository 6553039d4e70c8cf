"""When a night raises alerts: pure rules over what this night and the earlier ones found.

An alert's key names its cause. It is the same on every night on which the cause stands, so that one cause is
delivered once. Another cause has another key: a forecast that falls again, a proxy that recovered and falls
again, a run that went on and stalls again.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any
from urllib.parse import quote

from forecast.config.nightly import (
    AlertRule,
    FailedToLoad,
    ForecastFell,
    NothingMatches,
    NothingNew,
    ProxyFell,
    Spike,
)
from forecast.nightly.answer import difference, unmatched_text
from forecast.nightly.best_so_far import is_spike
from forecast.nightly.forecast_drop import fall_of
from forecast.nightly.records import Alert, Comparison, EndForecast, Night, Value, WatchedRun
from forecast.proxies.token_proxies import PROXIES
from forecast.report.format import figure, step_text

_SIGN = {proxy.name: proxy.sign for proxy in PROXIES if not proxy.learned}  # that of others is unknown
_MOST_STEPS = 6  # that are listed
_LONGEST_ERROR = 300  # characters of an error's first line


def judge(night: Night, before: Sequence[Night], rules: Sequence[AlertRule]) -> tuple[Alert, ...]:
    """The alerts of a night, in the order of the rules, one for each cause.

    Args:
        before: earlier nights, oldest first; nights that are not earlier are left out.
    """
    earlier = [b for b in before if b.date < night.date]
    found: dict[str, Alert] = {}
    for rule in rules:
        for alert in _alerts(rule, night, earlier):
            found.setdefault(alert.key, alert)
    return tuple(found.values())


def _alerts(rule: AlertRule, night: Night, before: Sequence[Night]) -> Iterable[Alert]:
    if isinstance(rule, Spike):
        return _spike(rule, night)
    if isinstance(rule, NothingMatches):
        return _nothing_matches(rule, night)
    if isinstance(rule, ForecastFell):
        return _forecast_fell(rule, night, before)
    if isinstance(rule, ProxyFell):
        return _proxy_fell(rule, night)
    if isinstance(rule, FailedToLoad):
        return _failed_to_load(rule, night)
    return _nothing_new(rule, night)


def _spike(rule: Spike, night: Night) -> Iterable[Alert]:
    """Checkpoints far behind the best before them: those of tonight, and where the newest still is, earlier.

    Neighbours are one cause; it begins with the first of them.
    """
    sign = _SIGN[rule.proxy]
    for run in dict.fromkeys(c.run for c in night.comparisons if _meant(rule.run, c.run)):
        row = [c for c in night.comparisons if c.overall and (c.run, c.metric) == (run, rule.proxy)]
        new = {c.step for c in night.new if c.run == run}
        for spike in _episodes(row, sign, rule.least):
            worst = max(spike, key=lambda c: -sign * c.value)
            stands = spike[-1] is row[-1]
            if not stands and not new & {c.step for c in spike}:
                continue
            first, last = spike[0], spike[-1]
            after = None if stands else row[row.index(last) + 1].step
            yield Alert(
                "spike",
                _key("spike", run, rule.proxy, first.step),
                run,
                _spike_text(first, last, worst, after),
                {
                    "proxy": rule.proxy,
                    "task": worst.task,
                    "from_step": first.step,
                    "to_step": last.step,
                    "step": worst.step,
                    "value": worst.value,
                    "best_step": worst.best_step,
                    "best_value": worst.best_value,
                    "change": worst.change,
                    "low": worst.low,
                    "high": worst.high,
                    "instances": worst.instances,
                    "reason": worst.reason,
                    "back_at_step": after,
                    "better": "low" if sign < 0 else "high",
                },
            )


def _episodes(row: Sequence[Comparison], sign: int, least: float) -> list[list[Comparison]]:
    """Neighbouring spikes, by step."""
    found: list[list[Comparison]] = []
    for place, one in enumerate(row):
        if not is_spike(row, place, sign, least):
            continue
        if found and found[-1][-1] is row[place - 1]:
            found[-1].append(one)
        else:
            found.append([one])
    return found


def _spike_text(first: Comparison, last: Comparison, worst: Comparison, after: int | None) -> str:
    change, best = worst.change, worst.best_value
    assert change is not None and best is not None
    share = f"{100 * abs(change / best):.0f}% " if best else ""
    text = (
        f"{worst.run}, {worst.task}: {worst.metric} is {figure(worst.value)} at step "
        f"{step_text(worst.step)}, {share}worse than the best so far, {figure(best)} at step "
        f"{step_text(worst.best_step)} ({difference(worst)})."
    )
    if after is not None:
        return f"{text} It was back by step {step_text(after)}."
    if last is not worst:
        text += f" At step {step_text(last.step)} it is {figure(last.value)}."
    return text if first is worst else f"{text} It began at step {step_text(first.step)}."


def _nothing_matches(rule: NothingMatches, night: Night) -> Iterable[Alert]:
    for run in night.runs:
        if run.unmatched is not None and _meant(rule.run, run.run):
            yield Alert(
                "nothing_matches",
                _key("nothing_matches", run.run, *run.unmatched.patterns),
                run.run,
                f"{run.run}: {unmatched_text(run.unmatched)}",
                {
                    "patterns": list(run.unmatched.patterns),
                    "every": run.unmatched.every,
                    "there": list(run.unmatched.names),
                    "count": run.unmatched.count,
                },
            )


def _forecast_fell(rule: ForecastFell, night: Night, before: Sequence[Night]) -> Iterable[Alert]:
    """What counts as a fall: see `falls`."""
    for now in night.forecasts:
        if not (_meant(rule.run, now.run) and _meant(rule.task, now.task)):
            continue
        history = [(n.date, f) for n in [*before, night] for f in n.forecasts if _same_end(f, now)]
        if (fall := fall_of(history)) is None:
            continue
        (then_date, then), (since, _) = fall.reference, fall.first
        assert then.low is not None, "a reference has an interval"
        text = (
            f"{now.run}, {now.task}: the {now.metric} forecast for step {step_text(now.step)} fell from "
            f"{then.forecast:.4f} ({100 * then.confidence:g}% interval {then.low:.4f} to "
            f"{then.high:.4f}, by checkpoints up to step {step_text(then.fit_until)}, {then_date}) to "
            f"{now.forecast:.4f} (by checkpoints up to step {step_text(now.fit_until)}): by "
            f"{then.forecast - now.forecast:.4f}, and {then.low - now.forecast:.4f} below the lower "
            f"end of that interval.{_since(since, night)}"
        )
        yield Alert(
            "forecast_fell",
            _key("forecast_fell", now.run, now.task, now.metric, now.step, now.fit_until),
            now.run,
            text,
            {
                "task": now.task,
                "metric": now.metric,
                "step": now.step,
                "forecast": now.forecast,
                "low": now.low,
                "high": now.high,
                "fit_until": now.fit_until,
                "earlier_date": then_date,
                "earlier_forecast": then.forecast,
                "earlier_low": then.low,
                "earlier_high": then.high,
                "earlier_fit_until": then.fit_until,
                "confidence": then.confidence,
                "since": since,
            },
        )


def _same_end(a: EndForecast, b: EndForecast) -> bool:
    """Whether two forecasts are of the same number by the same method."""
    return (a.run, a.task, a.metric, a.step, a.method) == (b.run, b.task, b.metric, b.step, b.method)


def _proxy_fell(rule: ProxyFell, night: Night) -> Iterable[Alert]:
    """Worse from each checkpoint to the next, up to the newest; equal values end such a row.

    Noise alone does that, too: on a plateau 1 of 24 checkpoints ends a row of 3, 1 of 720 a row of 5. The
    healthy OLMo-2 7B run (bits per byte of 20 tasks, 185 checkpoints) has 106 rows of 3, 21 of 4, 3 of 5.
    """
    sign = _SIGN[rule.proxy]
    wanted = [v for v in night.values if v.metric == rule.proxy and _meant(rule.run, v.run)]
    for run, task in _in_order((v.run, v.task) for v in wanted if _meant(rule.task, v.task)):
        own = sorted((v for v in wanted if (v.run, v.task) == (run, task)), key=lambda v: v.step)
        falling = _falling_tail(own, sign)
        k = len(falling) - 1
        if k < rule.checkpoints:
            continue
        first, last = falling[0], falling[-1]
        change = last.value - first.value
        at = [step_text(v.step) for v in falling[1:]]
        if len(at) > _MOST_STEPS:
            at = [*at[:2], "…", at[-1]]
        yield Alert(
            "proxy_fell",
            # The best value before the fall is where the cause begins; a row that goes on has the same one.
            _key("proxy_fell", run, task, rule.proxy, first.step),
            run,
            f"{run}, {task}: {rule.proxy} got worse at each of the last {k} checkpoints "
            f"(steps {', '.join(at)}): from {figure(first.value)} at step {step_text(first.step)} to "
            f"{figure(last.value)} at step {step_text(last.step)}, a change of {figure(change, signed=True)} "
            f"({'lower' if sign < 0 else 'higher'} is better).",
            {
                "task": task,
                "proxy": rule.proxy,
                "checkpoints": k,
                "from_step": first.step,
                "from_value": first.value,
                "to_step": last.step,
                "to_value": last.value,
                "change": change,
                "better": "low" if sign < 0 else "high",
            },
        )


def _falling_tail(values: Sequence[Value], sign: int) -> Sequence[Value]:
    """The longest end of a series in which each value is worse than the one before: one value or more."""
    begin = len(values) - 1
    while begin > 0 and sign * (values[begin].value - values[begin - 1].value) < 0:
        begin -= 1
    return values[begin:]


def _failed_to_load(rule: FailedToLoad, night: Night) -> Iterable[Alert]:
    """Only on the night of the first failure: later ones list the checkpoint as broken, which is known."""
    for broken in night.broken:
        checkpoint = broken.checkpoint
        if broken.since != night.date or not _meant(rule.run, checkpoint.run):
            continue
        yield Alert(
            "failed_to_load",
            _key("failed_to_load", checkpoint.run, checkpoint.step),
            checkpoint.run,
            f"{checkpoint.run}: the checkpoint of step {step_text(checkpoint.step)} could not be loaded or "
            f"scored: {first_line(broken.error)}",
            {"step": checkpoint.step, "source": checkpoint.source, "since": broken.since},
        )


def first_line(error: str) -> str:
    """The first line of an error that has words in it, not too long, with a full stop."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    line = lines[0] if lines else "no reason given"
    return (line[:_LONGEST_ERROR] + "…" if len(line) > _LONGEST_ERROR else line).rstrip(".: ") + "."


def _nothing_new(rule: NothingNew, night: Night) -> Iterable[Alert]:
    """Counted from the night of the last new checkpoint, or from the first night that looked for some."""
    for run in night.runs:
        since = run.last_new or run.first_night
        days = (date.fromisoformat(night.date) - date.fromisoformat(since)).days
        if not _meant(rule.run, run.run) or days < rule.days or _ended(run, night):
            continue
        last = run.steps[-1] if run.steps else None
        yield Alert(
            "nothing_new",
            _key("nothing_new", run.run, since),
            run.run,
            _nothing_new_text(run, night, days),
            {
                "days": days,
                "since": since,
                "last_step": last,
                "final_step": run.final_step,
                "problem": run.problem,
            },
        )


def _nothing_new_text(run: WatchedRun, night: Night, days: int) -> str:
    passed = f"{days} day{'s' if days != 1 else ''}"
    if run.last_new is None:
        text = f"{run.run}: no checkpoint in the {passed} since it was first watched ({run.first_night})."
    else:
        text = f"{run.run}: no new checkpoint for {passed}, the last one came on {run.last_new}."
    if run.steps:
        end = "" if run.final_step is None else f" of {step_text(run.final_step)}"
        text += f" Training was at step {step_text(run.steps[-1])}{end}."
    if run.unmatched is not None:
        text += f" Of what lies there, {unmatched_text(run.unmatched)}"
    if run.problem is not None:
        text += f" The run could not be looked at: {first_line(run.problem)}"
    if waiting := [w for w in night.waiting if w.checkpoint.run == run.run]:
        text += f" Waiting: step {step_text(waiting[-1].checkpoint.step)}, {first_line(waiting[-1].reason)}"
    return text


def _ended(run: WatchedRun, night: Night) -> bool:
    """Whether the last checkpoint of the training has come, be it broken."""
    broken = (b.checkpoint.step for b in night.broken if b.checkpoint.run == run.run)
    return run.final_step is not None and max([0, *run.steps, *broken]) >= run.final_step


def _meant(wanted: str | None, name: str) -> bool:
    return wanted is None or wanted == name


def _since(first: str, night: Night) -> str:
    return "" if first == night.date else f" Since {first}."


def _in_order(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(pairs))


def _key(*parts: Any) -> str:
    """Parts that hold a slash cannot be mistaken for two."""
    return "/".join(quote(str(part), safe=" @._-") for part in parts)
