"""A trajectory as a candidate read it: texts over tokens, and what can be asked for."""

import io
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lakes import config_of, fill, solutions, tell
from rich.console import Console
from tiny import llama, save_model
from transformers import AutoTokenizer

from forecast.errors import CandidateError, ConfigError, InputError, NoDataError
from forecast.inputs.models.resolve import Candidate
from forecast.inputs.trajectories import Trajectory
from forecast.lake.trajectory_view import CandidateTrajectory, align_tokens, read_trajectory, trajectory_view
from forecast.plan import Plan, make_plan
from forecast.report.records import record_of

TASKS = {
    "t": [*solutions("a", "b"), *solutions("b", expert="model", text=" It may be {}.")],
    "u": solutions("c"),
}


def rows_of(*n_bytes: int) -> pl.DataFrame:
    """Token rows that stand for these numbers of bytes."""
    values = {"token_id": 1, "logprob": -0.5, "entropy": 1.0, "rank": 1, "ties": 0, "top1_logprob": -0.5}
    values["top1_id"] = 1
    return pl.DataFrame([{"position": i, "n_bytes": n, **values} for i, n in enumerate(n_bytes)])


def texts(solution: str, *n_bytes: int) -> tuple[str, list[str]]:
    reading = align_tokens("m", Trajectory("t", "i", "x", "p", solution), rows_of(*n_bytes))
    return reading.unscored_text, [token.text for token in reading.tokens]


def printed(reading: CandidateTrajectory, table: bool = True) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200, force_terminal=True, color_system="truecolor").print(
        trajectory_view(reading, table)
    )
    return stream.getvalue()


def plain(reading: CandidateTrajectory) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(trajectory_view(reading, table=True))
    return stream.getvalue()


@pytest.fixture
def scored(tmp_path: Path) -> Plan:
    plan = make_plan(
        config_of(tmp_path, TASKS, {"one": "fake://1", "two": "fake://3", "also two": "fake://3"})
    )
    fill(plan)
    return plan


def test_texts_of_the_tokens_are_the_solution(scored: Plan) -> None:
    reading = read_trajectory(scored, "two", "t", "b", "model")
    assert (reading.candidate, reading.trajectory.solution) == ("two", " It may be b.")
    assert [token.text for token in reading.tokens] == [" It", " may", " be", " b", "."]
    assert [token.position for token in reading.tokens] == [0, 1, 2, 3, 4]
    assert reading.unscored_text == ""


def test_rows_in_any_order(scored: Plan) -> None:
    before = read_trajectory(scored, "one", "t", "a", None)
    path = scored.path(scored.units[0])
    table = pq.read_table(path)
    pq.write_table(table.take(list(reversed(range(table.num_rows)))), path)
    assert read_trajectory(scored, "one", "t", "a", None) == before


def test_what_is_not_given_is_the_first_there_is(scored: Plan) -> None:
    reading = read_trajectory(scored, None, None, None, None)
    assert (reading.candidate, reading.trajectory.task, reading.trajectory.instance_id) == ("one", "t", "a")
    assert read_trajectory(scored, None, None, "c", None).trajectory.task == "u"
    assert read_trajectory(scored, None, None, None, "model").trajectory.instance_id == "b"


def test_a_second_name_of_a_model_is_shown_by_that_name(scored: Plan) -> None:
    reading = read_trajectory(scored, "also two", None, None, None)
    assert reading.candidate == "also two"
    assert reading.tokens == read_trajectory(scored, "two", None, None, None).tokens


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("tow", None, None, None), ["no candidate 'tow'", "did you mean 'two'?", "one, two, also two"]),
        ((None, "v", None, None), ["no task 'v'", "t, u"]),
        ((None, "t", "z", None), ["no instance 'z'", "a, b"]),
        ((None, "u", None, "model"), ["no expert 'model'", "there are: human"]),
        ((None, "t", "a", "model"), ["no instance 'a'", "there are: b"]),
    ],
)
def test_what_there_is_not(scored: Plan, asked: tuple[str | None, ...], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read_trajectory(scored, *asked)
    assert all(words in str(error.value) for words in expected), error.value


def test_many_names_are_not_all_listed(tmp_path: Path) -> None:
    plan = make_plan(
        config_of(tmp_path, {"t": solutions(*(f"i{n:03}" for n in range(50)))}, {"a": "fake://1"})
    )
    with pytest.raises(ConfigError, match=r"i019 and 30 more$"):
        read_trajectory(plan, None, None, "x", None)


def test_not_scored_not_readable_and_damaged(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("a", "b")}, {"m": "fake://1"}))
    with pytest.raises(NoDataError, match="forecast score"):
        read_trajectory(plan, None, None, None, None)
    tell(plan, lambda _, t: "too long" if t.instance_id == "a" else [{"n_bytes": len(t.solution)}])
    with pytest.raises(NoDataError, match="could not read"):
        read_trajectory(plan, None, None, "a", None)
    assert read_trajectory(plan, None, None, "b", None).tokens[0].text == " It is b."
    path = Path(plan.path(plan.units[0]))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=path.name):
        read_trajectory(plan, None, None, "b", None)


def test_nothing_could_be_planned(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"t": solutions("a")}, {"m": "fake://1"})
    (tmp_path / "solutions-t.jsonl").unlink()
    with pytest.raises(NoDataError):
        read_trajectory(make_plan(config), None, None, None, None)


def test_the_part_before_the_window_is_kept_apart(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("a")}, {"m": "fake://1"}, window={"last_tokens": 2}))
    fill(plan)
    reading = read_trajectory(plan, None, None, None, None)
    assert reading.unscored_text == " It is"
    assert [(token.text, token.position) for token in reading.tokens] == [(" a", 2), (".", 3)]


def test_an_emoji_over_several_tokens_is_the_text_of_the_last() -> None:
    assert texts("ok 🙂!", 3, 1, 1, 2, 1) == ("", ["ok ", "", "", "🙂", "!"])
    assert texts("é🙂", 1, 2, 3) == ("", ["", "é", "🙂"]), "a token may end within a character"


def test_a_window_that_starts_within_a_character() -> None:
    assert texts("ab🙂c", 2, 1) == ("ab", ["🙂", "c"])


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.data())
def test_all_texts_joined_are_the_solution(solution: str, data: st.DataObject) -> None:
    size = len(solution.encode())
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=8)))
    counts = [b - a for a, b in zip(cuts, [*cuts[1:], size], strict=True)] if cuts else [size]
    before, tokens = texts(solution, *counts)
    assert before + "".join(tokens) == solution


def test_record_has_everything(scored: Plan) -> None:
    record = record_of(read_trajectory(scored, "one", "t", "a", None))
    assert record["candidate"] == "one"
    assert record["trajectory"]["solution"] == " It is a."
    assert record["tokens"][0].keys() == {
        "position", "text", "token_id", "n_bytes", "logprob", "entropy", "rank", "ties", "top1_logprob",
        "top1_id", "top1_text",
    }  # fmt: skip


def test_show_says_what_a_real_tokenizer_would_have_written(tmp_path: Path) -> None:
    model = save_model(tmp_path / "m", llama())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    rows = solutions("a", text=" She has 16 - 3 = 13 eggs left.\n#### 13")
    config = config_of(tmp_path, {"t": rows}, {"m": str(tmp_path / "m")}, engine={"kind": "torch"})
    plan = make_plan(config)
    fill(plan)
    shown = read_trajectory(plan, None, None, None, None)
    ids = tokenizer(shown.trajectory.prompt + shown.trajectory.solution)["input_ids"]
    logits = model(torch.tensor([ids])).logits[0, -len(shown.tokens) - 1 : -1]
    first = logits.argmax(dim=1).tolist()
    assert [t.top1_id for t in shown.tokens] == first
    assert [t.top1_text for t in shown.tokens] == [tokenizer.decode([token]) for token in first]
    assert shown.no_top1_texts is None
    page = plain(shown)
    for token in shown.tokens:
        assert repr(token.top1_text) in page or token.rank == 1


def test_first_choices_without_a_tokenizer_are_ids_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(candidate: Candidate, pairs: object) -> list[str]:
        raise CandidateError(f"candidate {candidate.name!r}: its tokenizer cannot be loaded")

    monkeypatch.setattr("forecast.lake.trajectory_view.texts_behind", fails)
    save_model(tmp_path / "m", llama())
    source = {"m": str(tmp_path / "m")}
    plan = make_plan(config_of(tmp_path, {"t": solutions("a")}, source, engine={"kind": "torch"}))
    tell(plan, lambda unit, t: [{"n_bytes": 1}, {"n_bytes": 1, "rank": 1}])
    shown = read_trajectory(plan, None, None, None, None)
    assert [t.top1_text for t in shown.tokens] == [None, "."]
    assert shown.no_top1_texts == "candidate 'm': its tokenizer cannot be loaded"
    assert "id 0" in plain(shown) and shown.no_top1_texts in plain(shown)


def test_show_of_a_made_up_candidate_gives_ids_and_says_why(scored: Plan) -> None:
    shown = read_trajectory(scored, "one", "t", "a", None)
    others = [t for t in shown.tokens if t.top1_id != t.token_id]
    assert others and shown.no_top1_texts is not None
    assert all(f"id {t.top1_id}" in plain(shown) for t in others)


def test_view_shows_the_text_and_the_figures() -> None:
    trajectory = Trajectory("t", "i", "x", "Say it.", "ab")
    changes = {"logprob": [-0.25, -2.5], "rank": [1, 9], "top1_id": [1, 5]}
    rows = rows_of(1, 1).with_columns(pl.Series(name, values) for name, values in changes.items())
    shown = plain(align_tokens("m", trajectory, rows))
    assert "m reads t/i by x: 2 tokens, cross-entropy 1.375 nats, first choice 50%" in shown
    assert "Say it.ab" in shown
    assert "-2.5000" in shown and "│ 9" in shown.replace("  ", " ")
    assert "id 5" in shown and "the same" in shown
    short = printed(align_tokens("m", trajectory, rows), table=False)
    assert "entropy  " not in short and "id 5" in short and "the same" not in short


def test_texts_are_neither_markup_nor_commands_to_the_terminal() -> None:
    trajectory = Trajectory("t", "[red]i[/red]", "x", "[bold]p[/bold] :smile:", "\x1b[2J[/x]\r\x07")
    shown = plain(align_tokens("[m]", trajectory, rows_of(len(trajectory.solution))))
    assert "[m] reads t/[red]i[/red]" in shown
    assert "[bold]p[/bold] :smile:" in shown
    assert r"\x1b[2J[/x]\r\x07" in shown
    assert "\\x1b[2J[/x]\\r\\x07" in shown, "escaped in the table"
    assert "\x1b" not in shown and "\x07" not in shown


def test_colour_runs_from_red_to_green() -> None:
    trajectory = Trajectory("t", "i", "x", "", "ab")
    rows = rows_of(1, 1).with_columns(logprob=pl.Series([0.0, -50.0]))
    shown = printed(align_tokens("m", trajectory, rows))
    assert "48;2;0;150;40ma" in shown and "48;2;199;0;40mb" in shown
