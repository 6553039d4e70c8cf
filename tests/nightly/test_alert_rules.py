from dataclasses import replace

import pytest
from nights import DAYS, FINAL, checkpoint, compared, end, night, nights_of, series

from forecast.config.nightly import (
    DEFAULT_ALERTS,
    FailedToLoad,
    ForecastFell,
    NothingMatches,
    NothingNew,
    ProxyFell,
    Spike,
)
from forecast.nightly.alert_rules import judge
from forecast.nightly.records import Alert, Broken, EndForecast, Night, Unmatched, Waiting, WatchedRun

FELL = ForecastFell(rule="forecast_fell")
PROXY = ProxyFell(rule="proxy_fell", checkpoints=3)
BROKEN = FailedToLoad(rule="failed_to_load")
NOTHING = NothingNew(rule="nothing_new")
SPIKE = Spike(rule="spike")
MATCHES = NothingMatches(rule="nothing_matches")


def last(nights: list[Night], rule=FELL) -> tuple[Alert, ...]:
    return judge(nights[-1], nights[:-1], [rule])


def alerts_by_night(forecasts: list[EndForecast]) -> list[str | None]:
    """The key of the alert of each night; None where there is none."""
    nights = nights_of(forecasts)
    found = [last(nights[: i + 1]) for i in range(len(nights))]
    return [alerts[0].key if alerts else None for alerts in found]


# A spike


def spiked(values: list[float], *new: int, rule: Spike = SPIKE, error: float = 0.01) -> tuple[Alert, ...]:
    """Alerts of a night on which these checkpoints, counted from 1, are new."""
    made = compared(series(values), error)
    return judge(night(0, comparisons=made, new=tuple(checkpoint(1000 * n) for n in new)), (), [rule])


def test_a_spike_is_told_although_the_newest_gained_on_the_one_before() -> None:
    (alert,) = spiked([5.0, 4.36, 5.92, 5.71], 3, 4)
    assert (alert.rule, alert.run) == ("spike", "olmo")
    numbers = alert.numbers
    assert (numbers["best_step"], numbers["best_value"]) == (2000, 4.36)
    assert (numbers["from_step"], numbers["to_step"], numbers["step"]) == (3000, 4000, 3000)
    assert numbers["back_at_step"] is None and numbers["low"] > 0
    for words in ("5.92", "4.36", "step 3,000", "step 2,000", "36%", "5.71"):
        assert words in alert.text


def test_a_spike_within_a_batch_counts_though_the_run_is_back() -> None:
    (alert,) = spiked([5.0, 4.36, 5.92, 4.2], 3, 4)
    assert alert.numbers["back_at_step"] == 4000
    assert spiked([5.0, 4.36, 5.92, 4.2], 4) == (), "it was told with its own night"


def test_a_spike_stands_until_the_run_is_back_and_another_is_another_cause() -> None:
    first = spiked([5.0, 4.36, 5.92], 3)[0].key
    assert spiked([5.0, 4.36, 5.92])[0].key == first, "nothing new"
    assert spiked([5.0, 4.36, 5.92, 5.5], 4)[0].key == first
    assert spiked([5.0, 4.36, 5.92, 4.3]) == ()
    (second,) = spiked([5.0, 4.36, 5.92, 4.3, 5.9], 5)
    assert second.key != first


def test_a_rise_within_noise_or_below_the_least_is_no_spike() -> None:
    assert spiked([5.0, 4.36, 5.92], 3, error=2.0) == ()
    assert spiked([5.0, 4.0, 4.15], 3) == ()
    assert len(spiked([5.0, 4.0, 4.15], 3, rule=Spike(rule="spike", least=0.03))) == 1
    assert spiked([5.0, 4.36, 5.92], 3, rule=Spike(rule="spike", run="b")) == ()


# Nothing matches


def test_what_lies_there_instead_of_checkpoints_is_told_once() -> None:
    unmatched = Unmatched(("checkpoint-20", "checkpoint-40"), 7, ("step_{step}",))
    tonight = night(1, runs=(WatchedRun("olmo", (), None, DAYS[0], None, unmatched=unmatched),))
    (alert,) = judge(tonight, (), [MATCHES])
    assert "checkpoint-20, checkpoint-40 and 5 more" in alert.text and "step_{step}" in alert.text
    assert alert.numbers["there"] == ["checkpoint-20", "checkpoint-40"]
    assert judge(replace(tonight, date=DAYS[4]), (), [MATCHES])[0].key == alert.key
    by_step = replace(unmatched, every=1000)
    (alert,) = judge(night(1, runs=(replace(tonight.runs[0], unmatched=by_step),)), (), [MATCHES])
    assert "multiple of 1000" in alert.text


# The forecast fell


def test_a_forecast_below_the_interval_of_the_one_before_is_told_with_both_numbers() -> None:
    (alert,) = last(nights_of([end(0.56, 4000), end(0.48, 5000)]))
    assert (alert.rule, alert.run) == ("forecast_fell", "olmo")
    for words in ("macro", "acc", "step 100,000", "0.5600", "0.5100 to 0.6100", "0.4800", DAYS[0], "90%"):
        assert words in alert.text
    assert "by 0.0800, and 0.0300 below" in alert.text
    assert alert.numbers["forecast"] == 0.48 and alert.numbers["earlier_forecast"] == 0.56
    assert alert.numbers["earlier_date"] == DAYS[0] and alert.numbers["since"] == DAYS[1]


@pytest.mark.parametrize(
    "now",
    [
        end(0.52, 5000),  # within the interval
        end(0.51, 5000),  # at its lower end
        end(0.9, 5000),  # rose
        end(0.4, 5000, step=FINAL + 1),  # of another step
        end(0.4, 5000, task="sciq"),
        end(0.4, 5000, run="other"),
        end(0.4, 5000, metric="acc_norm"),
        end(0.4, 5000, method="last value"),
    ],
)
def test_no_fall(now: EndForecast) -> None:
    assert last(nights_of([end(0.56, 4000), now])) == ()


def test_the_first_night_has_nothing_to_compare_with() -> None:
    assert last(nights_of([end(0.1, 4000)])) == ()


def test_the_interval_is_that_of_the_earlier_forecast() -> None:
    assert len(last(nights_of([end(0.56, 4000, half=0.01), end(0.54, 5000, half=0.3)]))) == 1
    assert len(last(nights_of([end(0.56, 4000, half=0.3), end(0.54, 5000, half=0.001)]))) == 0


def test_a_night_without_a_forecast_in_between_is_looked_past() -> None:
    nights = [night(0, forecasts=(end(0.56, 4000),)), night(1), night(2, forecasts=(end(0.4, 5000),))]
    (alert,) = last(nights)
    assert alert.numbers["earlier_date"] == DAYS[0]


def test_the_same_fall_has_the_same_key_until_another_checkpoint_comes() -> None:
    keys = alerts_by_night(
        [
            end(0.56, 4000),
            end(0.40, 5000),  # fell
            end(0.40, 5000),  # nothing new: still fallen, the same cause
            end(0.401, 5000),  # forecast again from the same checkpoints
            end(0.41, 6000),  # stays low: told already
            end(0.30, 7000),  # falls again
            end(0.45, 8000),
            end(0.30, 9000),  # and again
        ]
    )
    first, second, third = keys[1], keys[5], keys[7]
    assert keys == [None, first, first, first, None, second, None, third]
    assert len({first, second, third}) == 3 and None not in (first, second, third)


def test_the_fall_is_dated_by_the_night_that_saw_it_first() -> None:
    nights = nights_of([end(0.56, 4000), end(0.40, 5000), end(0.40, 5000)])
    (alert,) = last(nights)
    assert alert.numbers["since"] == DAYS[1] and alert.text.endswith(f"Since {DAYS[1]}.")
    assert "Since" not in last(nights[:2])[0].text


def test_a_slow_fall_is_found_against_the_forecast_of_half_the_training() -> None:
    # 0.01 a night, each within the interval of the night before; half of 12,000 is 6,000, 0.06 higher.
    forecasts = [end(0.60 - 0.01 * i, 1000 * (i + 1)) for i in range(12)]
    keys = alerts_by_night(forecasts)
    first = next(i for i, key in enumerate(keys) if key)
    fit = first + 1  # in thousands of steps; its reference has seen fit // 2
    assert 0.01 * (fit - fit // 2) > 0.05 >= 0.01 * (fit - 1 - (fit - 1) // 2)
    nights = nights_of(forecasts[: first + 1])
    assert last(nights)[0].numbers["earlier_fit_until"] == 1000 * (fit // 2)
    assert keys[first + 1] is None, "disproved forecasts are not compared with again"


def test_what_came_before_a_fall_is_forgotten() -> None:
    # 8,000 could be compared with 2,000 or 4,000, both above the fall.
    assert alerts_by_night([end(0.6, 2000), end(0.6, 4000), end(0.3, 5000), end(0.31, 8000)])[3] is None


def test_nights_that_are_not_earlier_are_not_compared_with() -> None:
    before = [night(0, forecasts=(end(0.56, 4000),))]
    tonight = night(1, forecasts=(end(0.40, 5000),))
    others = [night(1, forecasts=(end(0.9, 4500),)), night(2, forecasts=(end(0.9, 4600),))]
    assert judge(tonight, [*before, *others], [FELL]) == judge(tonight, before, [FELL])


# A proxy fell


@pytest.mark.parametrize(
    ("values", "proxy", "found"),
    [
        ([3.0, 2.0, 2.1, 2.2, 2.3], "cross_entropy__uniform", (2000, 5000, 3)),
        ([2.0, 2.1, 2.2, 2.3, 2.4], "cross_entropy__uniform", (1000, 5000, 4)),
        ([3.0, 2.9, 2.0, 2.1, 2.2], "cross_entropy__uniform", None),  # twice only
        ([2.0, 2.1, 2.2, 2.3, 2.3], "cross_entropy__uniform", None),  # the last is not worse
        ([2.0, 2.1, 2.2, 2.3, 2.1], "cross_entropy__uniform", None),
        ([2.4, 2.3, 2.2, 2.1, 2.0], "cross_entropy__uniform", None),  # lower is better
        ([0.5, 0.4, 0.3, 0.2], "top1_accuracy__uniform", (1000, 4000, 3)),
        ([0.2, 0.3, 0.4, 0.5], "top1_accuracy__uniform", None),
        ([2.0, 2.1, 2.2], "cross_entropy__uniform", None),  # three checkpoints are two steps
        ([], "cross_entropy__uniform", None),
    ],
)
def test_a_proxy_that_got_worse_at_each_of_the_last_three_checkpoints(values, proxy, found) -> None:
    tonight = night(0, values=series(values, proxy))
    alerts = judge(tonight, (), [PROXY.model_copy(update={"proxy": proxy})])
    assert [(a.numbers["from_step"], a.numbers["to_step"], a.numbers["checkpoints"]) for a in alerts] == (
        [found] if found else []
    )


def test_its_text_and_numbers() -> None:
    (alert,) = judge(night(0, values=series([3.0, 2.0, 2.125, 2.25, 2.375])), (), [PROXY])
    assert alert.run == "olmo"
    assert alert.text == (
        "olmo, gsm8k: cross_entropy__uniform got worse at each of the last 3 checkpoints "
        "(steps 3,000, 4,000, 5,000): from 2 at step 2,000 to 2.375 at step "
        "5,000, a change of +0.375 (lower is better)."
    )
    assert alert.numbers["change"] == 0.375 and alert.numbers["better"] == "low"


def test_a_long_row_of_steps_is_not_listed_whole() -> None:
    (alert,) = judge(night(0, values=series([float(i) for i in range(40)])), (), [PROXY])
    assert "last 39 checkpoints (steps 2,000, 3,000, …, 40,000)" in alert.text


def test_a_fall_that_goes_on_keeps_its_key_and_another_one_has_another() -> None:
    def key(values: list[float]) -> str:
        (alert,) = judge(night(0, values=series(values)), (), [PROXY])
        return alert.key

    first = key([2.0, 2.1, 2.2, 2.3])
    assert key([2.0, 2.1, 2.2, 2.3, 2.4]) == first
    assert key([2.0, 2.1, 2.2, 2.3, 2.0, 2.1, 2.2, 2.3]) != first


def test_values_may_come_in_any_order_and_are_of_their_run_and_task() -> None:
    values = (
        *series([2.0, 2.1, 2.2, 2.3])[::-1],
        *series([2.0, 2.1, 2.2, 2.3], task="proofs"),
        *series([2.0, 1.9, 1.8, 1.7], run="other"),
        *series([2.0, 2.1, 2.2, 2.3], "cross_entropy__entropy", task="another proxy"),
    )
    found = judge(night(0, values=values), (), [PROXY])
    assert [(a.run, a.numbers["task"]) for a in found] == [("olmo", "gsm8k"), ("olmo", "proofs")]
    assert len({a.key for a in found}) == 2
    only = judge(night(0, values=values), (), [PROXY.model_copy(update={"task": "proofs"})])
    assert [a.numbers["task"] for a in only] == ["proofs"]
    assert judge(night(0, values=values), (), [PROXY.model_copy(update={"run": "other"})]) == ()


def test_checkpoints_says_how_many() -> None:
    tonight = night(0, values=series([2.0, 2.1]))
    assert len(judge(tonight, (), [ProxyFell(rule="proxy_fell", checkpoints=1)])) == 1
    assert len(judge(tonight, (), [ProxyFell(rule="proxy_fell", checkpoints=2)])) == 0


# A checkpoint failed to load


def test_a_broken_checkpoint_is_told_once_with_the_first_line_of_its_error() -> None:
    broken = Broken(checkpoint(2500), "\n model.safetensors is cut short.\nTraceback\n", DAYS[1])
    (first,) = judge(night(1, broken=(broken,)), (), [BROKEN])
    assert first.text == (
        "olmo: the checkpoint of step 2,500 could not be loaded or scored: model.safetensors is cut short."
    )
    assert judge(night(3, broken=(broken,)), (), [BROKEN]) == (), "known by then"
    other = replace(broken, checkpoint=checkpoint(2600))
    assert judge(night(1, broken=(other,)), (), [BROKEN])[0].key != first.key


def test_a_long_error_is_cut_and_an_empty_one_said() -> None:
    (long,) = judge(night(0, broken=(Broken(checkpoint(1), "x" * 5000, DAYS[0]),)), (), [BROKEN])
    assert len(long.text) < 400 and "…" in long.text
    (empty,) = judge(night(0, broken=(Broken(checkpoint(1), " \n", DAYS[0]),)), (), [BROKEN])
    assert empty.text.endswith(": no reason given.")


# Nothing new


def watched(day: int, **facts) -> Night:
    known = {"run": "olmo", "steps": (1000, 2000), "last_new": DAYS[1], "first_night": DAYS[0]}
    return night(day, runs=(WatchedRun(**{**known, "final_step": FINAL, **facts}),))


def test_nothing_new_for_three_days() -> None:
    assert [len(judge(watched(day), (), [NOTHING])) for day in range(1, 7)] == [0, 0, 0, 1, 1, 1]
    (alert,) = judge(watched(4), (), [NOTHING])
    assert alert.text == (
        f"olmo: no new checkpoint for 3 days, the last one came on {DAYS[1]}. Training was at step 2,000 of "
        "100,000."
    )
    assert alert.numbers["days"] == 3 and alert.numbers["last_step"] == 2000
    assert [judge(watched(day), (), [NOTHING])[0].key for day in (5, 6)] == [alert.key] * 2


def test_a_run_that_went_on_and_stalls_again_is_another_cause() -> None:
    first = judge(watched(4), (), [NOTHING])[0].key
    assert judge(watched(6, last_new=DAYS[5]), (), [NOTHING]) == ()
    assert judge(watched(9, last_new=DAYS[5]), (), [NOTHING])[0].key != first


def test_a_run_that_never_had_any_is_counted_from_its_first_night() -> None:
    never = {"steps": (), "last_new": None, "final_step": None}
    assert judge(watched(2, **never), (), [NOTHING]) == ()
    (alert,) = judge(watched(3, **never), (), [NOTHING])
    assert alert.text == f"olmo: no checkpoint in the 3 days since it was first watched ({DAYS[0]})."
    assert alert.numbers["last_step"] is None


def test_months_are_counted_in_days() -> None:
    tonight = replace(watched(0, last_new="2026-02-27", first_night="2026-02-01"), date="2026-03-01")
    assert judge(tonight, (), [NOTHING]) == ()
    assert len(judge(replace(tonight, date="2026-03-02"), (), [NOTHING])) == 1


def test_training_that_has_ended_is_no_cause() -> None:
    assert judge(watched(9, steps=(1000, FINAL)), (), [NOTHING]) == ()
    assert judge(watched(9, steps=(1000, FINAL), problem="the folder is gone"), (), [NOTHING]) == ()
    assert len(judge(watched(9, steps=(1000, FINAL), final_step=None), (), [NOTHING])) == 1
    # The last checkpoint came and cannot be read: that is another alert.
    broken = replace(watched(9), broken=(Broken(checkpoint(FINAL), "cut short", DAYS[3]),))
    assert judge(broken, (), [NOTHING]) == ()


def test_why_is_said_as_far_as_it_is_known() -> None:
    (alert,) = judge(watched(4, problem="no folder /checkpoints/olmo\nat all"), (), [NOTHING])
    assert alert.text.endswith("The run could not be looked at: no folder /checkpoints/olmo.")
    waiting = replace(watched(4), waiting=(Waiting(checkpoint(3000), "no _SUCCESS in it"),))
    (alert,) = judge(waiting, (), [NOTHING])
    assert alert.text.endswith("Waiting: step 3,000, no _SUCCESS in it.")


# All rules


def test_rules_for_one_run_or_task_leave_the_others_alone() -> None:
    before = [night(0, forecasts=(end(0.6, 4000), end(0.6, 4000, task="sciq"), end(0.6, 4000, run="b")))]
    tonight = night(
        9,
        forecasts=(end(0.4, 5000), end(0.4, 5000, task="sciq"), end(0.4, 5000, run="b")),
        broken=(Broken(checkpoint(1), "x", DAYS[9]), Broken(checkpoint(1, "b"), "x", DAYS[9])),
        runs=tuple(WatchedRun(run, (), None, DAYS[0], None) for run in ("olmo", "b")),
    )

    def runs(rule) -> list[str | None]:
        return [a.run for a in judge(tonight, before, [rule])]

    assert runs(FELL) == ["olmo", "olmo", "b"]
    for rule in (FELL, BROKEN, NOTHING):
        assert set(runs(rule.model_copy(update={"run": "b"}))) == {"b"}
    only = judge(tonight, before, [FELL.model_copy(update={"task": "sciq"})])
    assert [a.numbers["task"] for a in only] == ["sciq"]


def test_two_rules_that_find_the_same_cause_tell_it_once() -> None:
    tonight = night(0, broken=(Broken(checkpoint(1), "x", DAYS[0]),))
    assert len(judge(tonight, (), [BROKEN, FailedToLoad(rule="failed_to_load", run="olmo")])) == 1


def test_names_with_slashes_are_not_mistaken_for_others() -> None:
    def key(run: str, task: str) -> str:
        forecasts = [end(0.6, 4000, task=task, run=run), end(0.4, 5000, task=task, run=run)]
        return last(nights_of(forecasts))[0].key

    assert key("a/b", "c") != key("a", "b/c")


def test_a_quiet_night_has_no_alerts() -> None:
    quiet = [watched(1), replace(watched(2), forecasts=(end(0.5, 2000),))]
    assert judge(quiet[1], quiet[:1], DEFAULT_ALERTS) == ()
