"""Nights over stubs of checkpoints, which say what they are told to: what is new, kept, told, repeated."""

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from house import QUESTIONS, House
from training_runs import stub_checkpoint, truncate, written

from forecast.api import Run
from forecast.api.checkpoints import forecast_checkpoints
from forecast.config.schema import CandidateConfig, Config
from forecast.errors import CandidateError, ConfigError, InputError
from forecast.inputs.models.resolve import Candidate, locate_files, resolve_candidate
from forecast.nightly import checkpoint_candidates as watched_module
from forecast.nightly import run_night as night_module
from forecast.nightly.checkpoint_candidates import plan_with_scored_checkpoints
from forecast.nightly.records import Night, read_report
from forecast.nightly.run_night import NightResult, prepare
from forecast.nightly.state import load_state, state_path
from forecast.plan import Unit
from forecast.runs.quarantine import Quarantined


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def steps(found: Any) -> list[int]:
    return [getattr(one, "checkpoint", one).step for one in found]


def test_the_first_night_scores_all_there_is_and_forecasts_the_end(house: House) -> None:
    house.arrive(100, 200, 300, 400, 500, 1000)
    house.arrive(600, marker=None)
    told = house.spend("2026-03-01")
    assert steps(told.night.new) == [100, 200, 300, 400, 500, 1000], "in order of numbers"
    assert steps(told.night.waiting) == [600]
    (run,) = told.night.runs
    assert (run.steps, run.first_night, run.last_new) == (
        (100, 200, 300, 400, 500, 1000),
        "2026-03-01",
        "2026-03-01",
    )
    # Values as they were told: the mean of three equal tokens, and the share of questions that it knows.
    values = {(v.task, v.metric, v.step): v.value for v in told.night.values}
    assert values["sums", "cross_entropy__uniform", 400] == pytest.approx(1.0, abs=1e-6)
    known = [n for n in range(QUESTIONS) if n < QUESTIONS * (0.4 + 0.5 * 400 / 1400)]
    assert values["quiz", "accuracy_per_character", 400] == pytest.approx(len(known) / QUESTIONS)
    assert len(values) == 12, "one proxy and one measured score of six checkpoints"
    (end,) = told.night.forecasts
    assert (end.run, end.task, end.step, end.fit_until) == ("tiny", "quiz", 2000, 1000)
    assert end.low <= end.forecast <= end.high
    assert end.forecast == pytest.approx(0.73, abs=0.1), "the curve reaches 0.4 + 0.5 * 2/3"
    assert told.night.ranking is not None
    assert len(told.night.ranking["candidates"]) == 6
    assert not told.something_failed and not told.alerts and told.night.missed == ()
    assert read_report(told.report[-1])[0] == told.night


def test_the_same_night_twice_changes_nothing_and_scores_nothing(house: House) -> None:
    house.arrive(100, 200, 300)
    truncate(house.run / "step_300")
    first = house.spend("2026-03-01")
    before, scored = house.files(), len(house.loaded)
    again = house.spend("2026-03-01")
    assert house.files() == before
    assert len(house.loaded) == scored
    assert again.night == first.night and again.raised == first.raised
    assert len(house.told()) == 1, "delivered once"


def test_known_checkpoints_are_not_read_again_and_outlive_their_files(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.arrive(100, 200)
    first = house.spend("2026-03-01")
    shutil.rmtree(house.run / "step_100")
    house.arrive(300)
    read: list[str] = []

    def resolve(settings: CandidateConfig, config: Config) -> Candidate:
        read.append(settings.name)
        return resolve_candidate(settings, config)

    monkeypatch.setattr(watched_module, "resolve_candidate", resolve)
    second = house.spend("2026-03-02")
    assert read == ["tiny @ 300"]
    assert second.night.runs[0].steps == (100, 200, 300)
    assert steps(second.night.new) == [300]
    old = {v for v in second.night.values if v.step < 300}
    assert old == set(first.night.values)
    assert house.loaded.count("tiny @ 100") == 2, "its two units, once each"
    # Other commands see the whole history, too.
    assert [
        c.name for c in plan_with_scored_checkpoints(house.config, house.config.nightly.watch).candidates
    ] == ["tiny @ 100", "tiny @ 200", "tiny @ 300"]


def test_other_weights_under_an_old_name_are_a_new_checkpoint(house: House) -> None:
    house.arrive(100, 200)
    first = house.spend("2026-03-01")
    shutil.rmtree(house.run / "step_200")
    stub_checkpoint(house.run / "step_200", seed=9)
    house.logprob[200] = -3.0
    second = house.spend("2026-03-02")
    assert steps(second.night.new) == [200] and second.night.runs[0].steps == (100, 200)
    values = {(v.metric, v.step): v.value for v in second.night.values}
    assert values["cross_entropy__uniform", 200] == pytest.approx(3.0)
    ids = [s.candidate_id for s in load_state(house.config.output).runs["tiny"].scored]
    assert len(set(ids)) == 2 and first.night.runs[0].steps == (100, 200)

    # The same weights, touched, are not new.
    (house.run / "step_200" / "model.safetensors").touch()
    assert not house.spend("2026-03-03").night.new


def test_a_missed_night_is_caught_up(house: House) -> None:
    house.arrive(100)
    house.spend("2026-03-01")
    house.arrive(200)  # on the second, which nobody spends
    house.arrive(300)
    told = house.spend("2026-03-04")
    assert steps(told.night.new) == [200, 300]
    assert told.night.missed == ("2026-03-02", "2026-03-03")
    assert house.spend("2026-03-05").night.missed == ()
    with pytest.raises(ConfigError, match="2026-03-04 lies before the last one, 2026-03-05"):
        prepare(house.config, "2026-03-04")


def test_nights_dated_ahead_of_the_clock_are_dated_back_when_the_user_says_the_date(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(date):
        @classmethod
        def today(cls) -> "Later":
            return cls(2099, 1, 1)

    house.arrive(100)
    with pytest.raises(ConfigError, match="2099-01-01 lies ahead of this machine's clock"):
        house.spend("2099-01-01")
    with monkeypatch.context() as patch:
        patch.setattr(night_module, "Date", Later)
        house.unloadable.add(200)
        house.arrive(200)
        assert steps(house.spend("2099-01-01").night.new) == [100]
    house.arrive(300)
    with pytest.raises(ConfigError, match=r"dated 2099-01-01, ahead .* once with --date 2026-03-05"):
        prepare(house.config, "2026-03-05")
    told = house.spend("2026-03-05", given=True)
    assert steps(told.night.new) == [300]
    assert [broken.since for broken in told.night.broken] == ["2026-03-04"]
    assert told.night.runs[0].last_new == "2026-03-05"
    assert b"2099" not in house.files()["nightly/state.json"]
    assert house.spend("2026-03-06").night.new == ()


def test_broken_checkpoints_stop_no_other_and_are_told_once_until_repaired(house: House) -> None:
    house.arrive(100, 200, 300)
    truncate(house.run / "step_200")
    house.unloadable.add(300)
    first = house.spend("2026-03-01")
    assert steps(first.night.new) == [100]
    assert [(b.checkpoint.step, b.since) for b in first.night.broken] == [
        (200, "2026-03-01"),
        (300, "2026-03-01"),
    ]
    assert "damaged" in first.night.broken[0].error
    assert "no weights" in first.night.broken[1].error
    assert first.something_failed and len(first.raised) == 2 and len(house.told()) == 2
    assert first.night.failed == (), "told as broken, not twice"

    second = house.spend("2026-03-02")
    assert [b.since for b in second.night.broken] == ["2026-03-01"] * 2
    assert second.alerts == second.raised == () and len(house.told()) == 2
    assert not second.something_failed, "known"

    shutil.rmtree(house.run / "step_200")
    house.arrive(200)
    third = house.spend("2026-03-03")
    assert steps(third.night.new) == [200] and steps(third.night.broken) == [300]
    assert not third.alerts and not third.raised
    truncate(house.run / "step_200")  # broken again: scored before, and told anew
    fourth = house.spend("2026-03-04")
    assert steps(fourth.night.broken) == [200, 300] and len(fourth.raised) == 1
    assert fourth.night.broken[0].since == "2026-03-04"
    shutil.rmtree(house.run / "step_300")  # gone without ever being scored
    assert steps(house.spend("2026-03-05").night.broken) == [200]


def test_nights_with_nothing_or_only_broken_ones_are_nights(house: House) -> None:
    empty = house.spend("2026-03-01")
    assert empty.night.new == () and empty.night.runs[0].steps == () and not empty.something_failed
    assert empty.night.ranking is None and "no checkpoint can be scored yet" in str(
        empty.night.ranking_problem
    )
    house.arrive(100)
    truncate(house.run / "step_100")
    broken = house.spend("2026-03-02")
    assert steps(broken.night.broken) == [100] and broken.something_failed
    house.unloadable.add(200)
    house.arrive(200)
    assert steps(house.spend("2026-03-03").night.broken) == [100, 200], "found at planning and at scoring"
    house.unloadable.clear()
    assert steps(house.spend("2026-03-04").night.new) == [200]


def test_a_folder_that_is_away_is_a_problem_and_forgets_nothing(house: House) -> None:
    house.arrive(100, 200)
    truncate(house.run / "step_200")
    house.spend("2026-03-01")
    house.run.rename(house.folder / "away")
    away = house.spend("2026-03-02")
    (run,) = away.night.runs
    assert run.problem is not None and "cannot be looked at" in run.problem
    assert run.steps == (100,) and steps(away.night.broken) == [200]
    assert away.something_failed
    (house.folder / "away").rename(house.run)
    assert house.spend("2026-03-03").night.runs[0].problem is None


def test_alerts_by_proxy_and_by_silence(tmp_path: Path) -> None:
    rules = [{"rule": "proxy_fell", "checkpoints": 2}, {"rule": "nothing_new", "days": 2}]
    house = House(tmp_path, alerts=rules)
    house.arrive(100, 200, 300)
    house.logprob |= {300: -2.0, 400: -2.5}
    assert not house.spend("2026-03-01").alerts, "one fall is not two"
    house.arrive(400)
    fell = house.spend("2026-03-02")
    assert [a.rule for a in fell.raised] == ["proxy_fell"]
    assert not house.spend("2026-03-03").raised
    silent = house.spend("2026-03-04")
    assert [a.rule for a in silent.raised] == ["nothing_new"]
    assert {a.rule for a in silent.alerts} == {"nothing_new", "proxy_fell"}
    house.arrive(500)  # better again
    calm = house.spend("2026-03-05")
    assert not calm.alerts
    assert house.told() == [fell.raised[0].key, silent.raised[0].key]


def test_a_loss_spike_is_an_alert_and_not_better_for_gaining_on_itself(house: House) -> None:
    house.logprob |= {100: -5.0, 200: -4.36, 300: -5.92, 400: -5.71, 500: -4.1}
    house.arrive(100, 200)
    assert not house.spend("2026-03-01").alerts
    house.arrive(300)
    house.arrive(400)
    spike = house.spend("2026-03-02")
    assert [a.rule for a in spike.raised] == ["spike"]
    (best,) = spike.night.best_so_far
    assert (best.candidate, best.step, best.metric) == ("tiny @ 200", 200, "cross_entropy__uniform")
    assert (best.value, best.since) == (pytest.approx(4.36), "2026-03-01")
    assert best.newest is not None and (best.newest.step, best.newest.verdict) == (400, "worse")
    stands = house.spend("2026-03-03")
    assert [a.rule for a in stands.alerts] == ["spike"] and not stands.raised
    house.arrive(500)
    back = house.spend("2026-03-04")
    assert not back.alerts and back.night.best_so_far[0].step == 500
    assert len(house.told()) == 1


def test_a_task_without_signal_is_forecast_by_its_level_at_chance_or_above_and_without_interval(
    house: House,
) -> None:
    def guesses(unit: Unit, text: Any) -> list[dict[str, float]]:
        if unit.shard.kind == "choices":  # right in 4 of 40
            right = (int(text.expert) == int(text.instance_id[1:]) % 2) == (int(text.instance_id[1:]) < 4)
            return [{"logprob": -1.0 if right else -2.0}]
        return House._says(house, unit, text)

    house._says = guesses  # type: ignore[method-assign]
    house.arrive(100, 200, 300, 400, 500, 600)
    told = house.spend("2026-03-01")
    (end,) = told.night.forecasts
    assert end.forecast == pytest.approx(0.25), "four options; measured are 0.1"
    assert (end.low, end.high, end.method) == (None, None, "level") and end.reason
    assert "no interval, because" in Path(told.report[0]).read_text()


def test_names_that_match_nothing_are_an_alert_and_a_failure_until_they_do(tmp_path: Path) -> None:
    house = House(tmp_path, watch={"pattern": "step_{step}"})
    for step in (20, 40):
        stub_checkpoint(house.run / f"checkpoint-{step}", seed=step)
    first = house.spend("2026-03-01")
    assert [a.rule for a in first.raised] == ["nothing_matches"]
    assert "checkpoint-20, checkpoint-40" in first.raised[0].text
    second = house.spend("2026-03-02")
    assert not second.raised and second.something_failed
    house.arrive(100)
    third = house.spend("2026-03-03")
    assert not third.alerts and not third.something_failed and steps(third.night.new) == [100]
    shutil.rmtree(house.run / "step_100")
    assert house.spend("2026-03-04").night.runs[0].unmatched is None, "pruned, and it once matched"


def test_a_failure_of_a_candidate_is_a_failure_of_its_first_night_and_one_of_a_file_of_all() -> None:
    candidate = {"candidate": "a @ 1", "task": "quiz", "error": "too long"}
    file = {"measured_scores": "x.json", "error": "no such file"}

    def failed(*failures: dict[str, str], before: tuple[dict[str, str], ...] = ()) -> bool:
        tonight, earlier = Night("2026-03-02", "c", failed=failures), Night("2026-03-01", "c", failed=before)
        return NightResult(tonight, (), (), (), (), None, earlier).something_failed

    assert failed(candidate) and not failed(candidate, before=(candidate,))
    assert failed({**candidate, "task": "sums"}, before=(candidate,))
    assert failed(file, before=(file,))


def test_a_broken_checkpoint_with_other_content_is_reported_again(house: House) -> None:
    house.arrive(100, 200)
    house.unloadable.add(200)
    assert len(house.spend("2026-03-01").raised) == 1
    assert not house.spend("2026-03-02").something_failed
    shutil.rmtree(house.run / "step_200")
    stub_checkpoint(house.run / "step_200", seed=9)
    other = house.spend("2026-03-03")
    assert other.night.broken[0].since == "2026-03-03" and len(other.raised) == 1 and other.something_failed
    assert not house.spend("2026-03-04").raised


def test_a_forecast_that_falls_is_an_alert(house: House) -> None:
    house.arrive(100, 200, 300, 400, 500, 600)
    first = house.spend("2026-03-01")
    (end,) = first.night.forecasts

    def forgets(unit: Unit, text: Any) -> list[dict[str, float]]:
        step = unit.candidate.settings.step
        assert step is not None
        if unit.shard.kind == "choices" and step > 600:
            return [{"logprob": -1.0 if text.expert != str(int(text.instance_id[1:]) % 2) else -2.0}]
        return House._says(house, unit, text)

    house._says = forgets  # type: ignore[method-assign]
    house.arrive(700, 800, 900)
    second = house.spend("2026-03-02")
    (lower,) = second.night.forecasts
    assert lower.forecast < end.low
    assert "forecast_fell" in {a.rule for a in second.raised}


@pytest.mark.parametrize(
    "stage",
    [
        "write_report",
        *(
            pytest.param(stage, marks=pytest.mark.slow)
            for stage in ("score", "aggregate", "save_state", "write_index", "deliver", "last save")
        ),
    ],
)
def test_cut_off_anywhere_the_same_command_does_the_rest(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, hit = House(tmp_path / "calm"), House(tmp_path / "hit")
    for house in (calm, hit):
        house.arrive(100, 200)
        house.spend("2026-03-01")
        house.arrive(300, 400)
        truncate(house.run / "step_400")
    calm.spend("2026-03-02")

    class Cut(BaseException):
        pass

    def cut(*_: Any) -> Any:
        raise Cut

    work = hit.work()
    with monkeypatch.context() as patch, pytest.raises(Cut):
        if stage in ("score", "aggregate"):
            hit.spend("2026-03-02", replace(work, **{stage: cut}))
        elif stage == "last save":
            saves = iter([night_module.save_state, cut])
            patch.setattr(night_module, "save_state", lambda *a: next(saves)(*a))
            hit.spend("2026-03-02")
        else:
            patch.setattr(night_module, stage, cut)
            hit.spend("2026-03-02")
    hit.spend("2026-03-02")
    assert _without_places(calm) == _without_places(hit)
    assert len(calm.told()) == 1
    assert hit.told() in (calm.told(), calm.told() * 2), "at least once"
    assert hit.told() == calm.told() or stage == "last save"


def _without_places(house: House) -> dict[str, Any]:
    """State and records; the times of files differ between two houses."""
    read = {name: content.decode() for name, content in house.files().items() if name.endswith(".json")}
    found = {name: json.loads(text.replace(str(house.folder), "")) for name, text in read.items()}
    run = found["nightly/state.json"]["runs"]["tiny"]
    for one in (*run["scored"], *run["broken"]):
        del one["stamp"]
    return found


def test_an_alert_that_could_not_be_told_is_told_the_next_night(house: House) -> None:
    house.arrive(100, 200)
    truncate(house.run / "step_200")
    deliver = house.config.nightly
    assert deliver is not None
    good = house.config
    broken = deliver.model_copy(
        update={"deliver": (deliver.deliver[0].model_copy(update={"command": ("false",)}),)}
    )
    house.config = good.model_copy(update={"nightly": broken})
    first = house.spend("2026-03-01")
    assert first.undelivered and len(first.raised) == 1 and first.something_failed
    # By the next night it does not stand any more, and is told all the same.
    shutil.rmtree(house.run / "step_200")
    house.config = good
    second = house.spend("2026-03-02")
    assert second.alerts == () and len(second.raised) == 1 and len(house.told()) == 1
    third = house.spend("2026-03-03")
    assert third.raised == () and len(house.told()) == 1


def test_a_quarantined_checkpoint_is_broken_for_the_same_reason_on_every_night() -> None:
    error = "candidate 'tiny @ 5': its numbers are NaN\n  task 'sums'"
    held_back = Quarantined("id", "tiny @ 5", error, tries=2, since=0.0, ground="")
    assert held_back.failure().error != error
    (plain,) = night_module._without_history([held_back.failure()])
    assert plain.error == error


def test_names_shared_with_candidates_are_refused_and_secrets_stay_out_of_the_results(house: House) -> None:
    house.arrive(100)
    same = {"name": "tiny @ 100", "source": str(house.run / "step_100")}
    config = Config.model_validate({**house.config.model_dump(), "candidates": [same]})
    with pytest.raises(ConfigError, match="same names: tiny @ 100"):
        prepare(config, "2026-03-01")
    plan = prepare(house.config, "2026-03-01").plan
    assert "tee" not in plan.config.model_dump_json()


def test_without_a_watched_run_or_a_known_checkpoint_commands_say_what_to_do(house: House) -> None:
    with pytest.raises(ConfigError, match="run `forecast nightly`"):
        plan_with_scored_checkpoints(house.config, house.config.nightly.watch)
    house.arrive(100)
    plain = house.config.model_copy(update={"nightly": None})
    with pytest.raises(ConfigError, match="watches no training run"):
        prepare(plain, "2026-03-01")
    Path(state_path(house.config.output)).parent.mkdir(parents=True)
    Path(state_path(house.config.output)).write_text('{"schema": 99}')
    with pytest.raises(InputError, match=r"state\.json cannot be read"):
        prepare(house.config, "2026-03-01")


def test_texts_added_later_fail_for_checkpoints_whose_files_are_gone(house: House) -> None:
    house.arrive(100, 200)
    house.spend("2026-03-01")
    shutil.rmtree(house.run / "step_100")
    more = house.config.trajectories[0].model_copy(
        update={
            "path": written(house.folder / "more.jsonl", [{"prompt": "p", "solution": "s"}]),
            "task": "more",
        }
    )
    house.config = house.config.model_copy(update={"trajectories": (*house.config.trajectories, more)})
    plan = prepare(house.config, "2026-03-02").plan
    waiting = [u.candidate for u in plan.units if u.address not in plan.done() and u.shard.task == "more"]
    assert [c.name for c in waiting] == ["tiny @ 100", "tiny @ 200"]
    with pytest.raises(CandidateError, match=r"no model folder at .*step_100"):
        locate_files(waiting[0].settings)


def test_extrapolate_ends_at_the_final_step_of_a_watched_run_and_knows_chance(house: House) -> None:
    house.arrive(100, 150, 200, 300, 400, 500)
    house.spend("2026-03-01")
    found = forecast_checkpoints(Run(house.config))
    assert found.options.horizons == (2.0, 4.0), "step 2,000 is four times 500; nothing beyond it"
    assert found.options.floor == {"quiz": 0.25}
    early = forecast_checkpoints(Run(house.config), fit_until=450, horizon=[3.0])
    assert early.options.horizons == (3.0,), "as asked for"
    watch = house.config.nightly.watch[0].model_copy(update={"final_step": 1800})
    nightly = house.config.nightly.model_copy(update={"watch": (watch,)})
    other = house.config.model_copy(update={"nightly": nightly})
    assert forecast_checkpoints(Run(other), fit_until=450).options.horizons == (2.0, 4.0, 4.5)
    ended = house.config.nightly.model_copy(update={"watch": (watch.model_copy(update={"final_step": 500}),)})
    usual = forecast_checkpoints(Run(house.config.model_copy(update={"nightly": ended}))).options.horizons
    assert usual == (2.0, 4.0, 8.0, 18.0), "training has ended"


def test_the_noise_of_a_change_is_of_the_paired_instances_in_the_warehouse(house: House) -> None:
    nats = {100: [1.0, 2.0, 3.0, 4.0], 200: [1.1, 2.3, 3.1, 4.5]}

    def says(unit: Unit, text: Any) -> list[dict[str, float]]:
        if unit.shard.kind == "trajectories":
            return [{"logprob": -nats[unit.candidate.settings.step or 0][int(text.prompt[1:])]}] * 3
        return House._says(house, unit, text)

    house._says = says  # type: ignore[method-assign]
    house.arrive(100, 200)
    found = {(c.metric, c.step): c for c in house.spend("2026-03-01").night.comparisons}
    loss = found["cross_entropy__uniform", 200]
    half = 3.182446 * np.std([0.1, 0.3, 0.1, 0.5], ddof=1) / 2  # t at 3 degrees of freedom
    assert (loss.change, loss.instances, loss.verdict) == (pytest.approx(0.25), 4, "no different")
    assert (loss.low, loss.high) == pytest.approx((0.25 - half, 0.25 + half), abs=1e-5)
    quiz = found["accuracy_per_character", 200]
    assert quiz.instances == QUESTIONS and quiz.low is not None
