"""State from one night to the next."""

import pytest

from forecast import storage
from forecast.errors import InputError
from forecast.nightly.records import Alert, Broken, Checkpoint
from forecast.nightly.state import (
    RunState,
    Scored,
    State,
    load_state,
    save_state,
    state_bytes,
    state_path,
)

ONE = Checkpoint("olmo", 5, "olmo @ 5", "s3://bucket/step_5")
TWO = Checkpoint("olmo", 6, "olmo @ 6", "org/model", "step6")


def alert(key: str, text: str = "it fell") -> Alert:
    return Alert("forecast_fell", key, "olmo", text, {"by": 0.25, "steps": [1, 2]})


@pytest.fixture(params=["disk", "object store"])
def output(request: pytest.FixtureRequest) -> str:
    fixture = "tmp_path" if request.param == "disk" else "bucket"
    return str(request.getfixturevalue(fixture))


def test_a_state_is_read_back_as_it_was_written(output: str) -> None:
    assert load_state(output) == State()
    run = RunState(
        "2026-03-01",
        "2026-03-02",
        (Scored(ONE, "stamp", "id", "digest", None, "2026-03-01"),),
        (Broken(TWO, "größer\n| `x`", "2026-03-02"),),
    )
    state = State("2026-03-02", {"olmo": run, "empty": RunState("2026-03-02")}).with_alerts(
        "2026-03-02", [alert("a")]
    )
    save_state(output, state)
    assert load_state(output) == state
    assert storage.read_bytes(state_path(output)) == state_bytes(load_state(output))


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 2}', '{"schema": 1, "runs": 3}', "[1]"])
def test_a_damaged_state_is_refused_by_name(tmp_path, text: str) -> None:
    storage.write_bytes(state_path(str(tmp_path)), text.encode())
    with pytest.raises(InputError, match=r"nightly/state\.json cannot be read.*restore it, or delete it"):
        load_state(str(tmp_path))


def test_an_alert_is_delivered_once_while_it_stands_and_again_when_it_returns() -> None:
    delivered = []
    state = State()
    for night, standing in enumerate([["a"], ["a", "b"], ["b"], [], ["a"], ["a"]]):
        alerts = [alert(key, f"night {night}") for key in standing]
        state = state.with_alerts(str(night), alerts)
        delivered.append([a.key for a in state.undelivered()])
        state = state.all_delivered(alerts)
        assert [raised.alert.text for raised in state.alerts] == [f"night {night}"] * len(standing)
    assert delivered == [["a"], ["b"], [], [], ["a"], []]


def test_an_undelivered_alert_is_kept_until_delivered() -> None:
    state = (
        State().with_alerts("1", [alert("a")]).with_alerts("2", [alert("b")]).with_alerts("2", [alert("b")])
    )
    assert [(r.alert.key, r.since) for r in state.alerts] == [("a", "1"), ("b", "2")]
    assert [a.key for a in state.undelivered()] == ["a", "b"]
    assert [r.alert.key for r in state.all_delivered([alert("b")]).alerts] == ["b"]
