"""From a unit of work to its table of token rows, with the made-up candidate."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from tiny import TRAJECTORIES, resolve

from forecast.engines import Engine, SequenceStats, load_engine
from forecast.engines.encode import Encoded
from forecast.errors import CandidateError
from forecast.inputs.trajectories import Trajectory
from forecast.plan import Shard, Unit
from forecast.scoring import TOKEN_ROW, ScoredUnit, score_units


def score(
    trajectories: tuple[Trajectory, ...] = TRAJECTORIES,
    source: str = "fake://1.5",
    kind: Any = "trajectories",
    engine: Engine | None = None,
    prompt_form: str = "raw",
    **settings: Any,
) -> ScoredUnit:
    candidate, config = resolve(source, engine={"kind": "fake"}, prompt_form=prompt_form)
    config = type(config).model_validate({**config.model_dump(), **settings})
    unit = Unit(candidate, Shard(kind, "sums", trajectories), "address")
    return score_units([unit], engine or load_engine(candidate, config.engine), config)[0]


def of(scored: ScoredUnit, instance_id: str) -> pl.DataFrame:
    return scored.rows.filter(pl.col("instance_id") == instance_id)


def test_one_row_per_scored_token() -> None:
    scored = score()
    rows = scored.rows
    assert rows.schema == TOKEN_ROW
    assert not rows.null_count().sum_horizontal().item()
    assert scored.unscored == ()
    candidate, _ = resolve("fake://1.5", engine={"kind": "fake"})
    assert rows["candidate_id"].unique().to_list() == [candidate.candidate_id]
    assert rows["task"].unique().to_list() == ["sums"]
    assert rows["expert"].unique().to_list() == ["human"]
    assert rows["instance_id"].unique(maintain_order=True).to_list() == [t.instance_id for t in TRAJECTORIES]
    for trajectory in TRAJECTORIES:
        own = of(scored, trajectory.instance_id)
        assert own["position"].to_list() == list(range(own.height))
        assert own["n_bytes"].sum() == len(trajectory.solution.encode())
    assert scored.tokens_read > rows.height
    assert scored.seconds > 0


class Echo:
    """An engine whose numbers say which sequence and token they belong to."""

    def __init__(self, real: Engine) -> None:
        self.tokenizer, self.facts = real.tokenizer, real.facts

    def score(self, sequences: list[Encoded]) -> list[SequenceStats]:
        return [self._one(100 * i, len(one.n_bytes)) for i, one in enumerate(sequences)]

    def _one(self, start: int, n: int) -> SequenceStats:
        values = start + np.arange(n)
        whole, real = values.astype(np.int32), values.astype(np.float32)
        return SequenceStats(-real, real + 0.25, whole + 1, whole + 2, -real / 2, whole + 3)

    def close(self) -> None: ...


def test_every_number_stands_in_its_own_row_and_column() -> None:
    candidate, config = resolve("fake://1.5", engine={"kind": "fake"})
    real = load_engine(candidate, config.engine)
    scored = score(engine=Echo(real))
    for i, trajectory in enumerate(TRAJECTORIES):
        own = of(scored, trajectory.instance_id)
        values = 100 * i + np.arange(own.height)
        assert own["logprob"].to_list() == (-values).tolist()
        assert own["entropy"].to_list() == (values + 0.25).tolist()
        assert own["rank"].to_list() == (values + 1).tolist()
        assert own["ties"].to_list() == (values + 2).tolist()
        assert own["top1_logprob"].to_list() == (-values / 2).tolist()
        assert own["top1_id"].to_list() == (values + 3).tolist()
        ids = real.tokenizer([trajectory.prompt + trajectory.solution])["input_ids"][0]
        assert own["token_id"].to_list() == ids[-own.height :]


def test_engines_must_answer_for_every_sequence() -> None:
    class Forgetful(Echo):
        def score(self, sequences: list[Encoded]) -> list[SequenceStats]:
            return super().score(sequences)[:-1]

    candidate, config = resolve("fake://1.5", engine={"kind": "fake"})
    with pytest.raises(ValueError, match="zip"):
        score(engine=Forgetful(load_engine(candidate, config.engine)))


def test_windows_keep_the_last_tokens_and_their_positions() -> None:
    whole, last = score(window="all"), score(window={"last_tokens": 5})
    for trajectory in TRAJECTORIES:
        every, kept = of(whole, trajectory.instance_id), of(last, trajectory.instance_id)
        assert kept.height == min(5, every.height)
        # The prefix is read in full, so the numbers are the same too.
        assert_frame_equal(kept, every.tail(5))
    assert last.tokens_read == whole.tokens_read


def test_windows_of_bytes() -> None:
    rows = score(window={"last_bytes": 12}).rows.group_by("instance_id").agg(pl.col("n_bytes").sum())
    assert rows["n_bytes"].max() <= 12
    assert rows["n_bytes"].min() == 3  # " ok" is no longer


def test_options_of_a_direct_evaluation_are_scored_whole() -> None:
    assert_frame_equal(score(kind="choices", window={"last_tokens": 1}).rows, score(window="all").rows)


def test_options_of_a_direct_evaluation_follow_raw_prompts() -> None:
    with pytest.raises(CandidateError, match="no chat template"):
        score(prompt_form="chat")
    score(prompt_form="chat", kind="choices")


def test_what_does_not_fit_is_reported_not_cut() -> None:
    scored = score(source="fake://1.5?context=40")
    left_out = [one.trajectory.instance_id for one in scored.unscored]
    assert 0 < len(left_out) < len(TRAJECTORIES)
    assert all("do not fit the context of 40" in one.reason for one in scored.unscored)
    present = set(scored.rows["instance_id"])
    assert present | set(left_out) == {t.instance_id for t in TRAJECTORIES} and not present & set(left_out)


def test_prefixes_are_cut_where_the_configuration_says_so() -> None:
    scored = score(source="fake://1.5?context=40", too_long="truncate_prefix", window={"last_tokens": 20})
    assert scored.unscored == ()
    assert scored.tokens_read <= 40 * len(TRAJECTORIES)


def test_nothing_to_score_is_an_empty_table() -> None:
    scored = score(source="fake://1.5?context=2")
    assert scored.rows.schema == TOKEN_ROW and scored.rows.height == 0
    assert len(scored.unscored) == len(TRAJECTORIES)
    assert scored.tokens_read == 0


def test_scoring_again_gives_the_same_table() -> None:
    assert_frame_equal(score().rows, score().rows)


def test_instances_do_not_depend_on_their_neighbours() -> None:
    whole = score()
    for trajectory in TRAJECTORIES:
        assert_frame_equal(score((trajectory,)).rows, of(whole, trajectory.instance_id))


def test_text_beyond_ascii_keeps_its_bytes() -> None:
    trajectory = replace(TRAJECTORIES[0], instance_id="é", solution=" Él tiene 13 huevos — ¡trece! 🥚")
    rows = score((trajectory,)).rows
    assert rows["n_bytes"].sum() == len(trajectory.solution.encode())
    assert rows["instance_id"].unique().to_list() == ["é"]


def test_units_scored_together_get_their_own_rows() -> None:
    candidate, config = resolve("fake://1.5", engine={"kind": "fake"})
    experts = [
        tuple(replace(t, expert=expert, solution=t.solution + expert) for t in TRAJECTORIES[: 3 - i])
        for i, expert in enumerate("abc")
    ]
    units = [
        Unit(candidate, Shard("trajectories", "sums", own), f"{i}") for i, own in enumerate([*experts, ()])
    ]
    engine = load_engine(candidate, config.engine)
    together = score_units(units, engine, config)
    for unit, one in zip(units, together, strict=True):
        alone = score_units([unit], engine, config)[0]
        assert_frame_equal(one.rows, alone.rows)
        assert one.tokens_read == alone.tokens_read
    assert together[-1].rows.height == together[-1].seconds == 0
    assert together[0].seconds > together[2].seconds > 0
