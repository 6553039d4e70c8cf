"""Exact statistics inside vLLM's worker processes.

vLLM hands back log-probabilities of a truncated list. What is needed instead is taken where the hidden states
of a step pass by: at the positions that predict scored tokens the output head is run in blocks of bounded
size, and the statistics of each token are kept until they are fetched. To vLLM such a request is an ordinary
prompt of which one token is generated, so it may use its prefix cache and cut prompts in chunks.

This module is imported by vLLM in each worker, and needs nothing of vLLM itself.

Legend: N tokens predicted in a step, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from forecast.tokenstats import logit_stats

# Key of the sampling parameters' `extra_args`: [index, first predictor, target, target, ...].
WANTED = "forecast"
_BLOCK_BYTES = 96 << 20

ComputeLogits = Callable[[torch.Tensor], torch.Tensor | None]


@dataclass
class RequestStats:
    """Statistics of one request; a rank of -1 marks a token whose hidden state has not passed by."""

    floats: NDArray[np.float32]  # [3, S]: logprob, entropy, top1_logprob
    counts: NDArray[np.int32]  # [3, S]: rank, ties, top1_id


@dataclass(frozen=True)
class Span:
    """Part of a prompt in a step: `size` tokens from `start` on, at `offset` of the step's hidden states."""

    wanted: Sequence[int]
    offset: int
    start: int
    size: int


class Collector:
    """Keeps the statistics of requests until they are fetched."""

    def __init__(self, vocab_size: int) -> None:
        """Args: vocab_size: real entries of the vocabulary; logits behind are padding."""
        self._vocab_size = vocab_size
        self._found: dict[int, RequestStats] = {}

    @torch.inference_mode()
    def collect(self, spans: Iterable[Span], hidden: torch.Tensor, compute_logits: ComputeLogits) -> None:
        """Take the statistics of a step.

        Args:
            hidden: [step, D] final hidden states.
            compute_logits: the model's own, with all that its family does to logits. Under tensor parallelism
                every rank has to call it alike, and may get None.
        """
        rows: list[NDArray[np.int64]] = []
        places: list[tuple[int, int, int]] = []  # index, first token, behind the last
        targets: list[int] = []
        for span in spans:
            index, first, own = span.wanted[0], span.wanted[1], span.wanted[2:]
            begin, end = max(first, span.start), min(first + len(own), span.start + span.size)
            if index not in self._found:
                self._found[index] = RequestStats(
                    np.full((3, len(own)), np.nan, np.float32), np.full((3, len(own)), -1, np.int32)
                )
            if begin < end:
                rows.append(np.arange(begin, end) - span.start + span.offset)
                places.append((index, begin - first, end - first))
                targets += own[begin - first : end - first]
        if not rows:
            return
        row_N = torch.from_numpy(np.concatenate(rows)).to(hidden.device)
        target_N = torch.tensor(targets, dtype=torch.long, device=hidden.device)
        block = max(1, _BLOCK_BYTES // (4 * self._vocab_size))
        parts = []
        for i in range(0, len(row_N), block):
            logits = compute_logits(hidden[row_N[i : i + block]])
            if logits is not None:
                # A soft-cap may have made finite logits of an infinite state.
                broken = ~hidden[row_N[i : i + block]].isfinite().all(1, keepdim=True)
                real = logits[:, : self._vocab_size]
                real = real.masked_fill(broken, torch.nan) if bool(broken.any()) else real
                parts.append(logit_stats(real, target_N[i : i + block], budget_bytes=_BLOCK_BYTES))
        if not parts:  # another rank has them
            return
        logprob, entropy, rank, ties, top1, top1_id = (
            torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True)
        )
        done = 0
        for index, begin, end in places:
            here = slice(done, done + end - begin)
            self._found[index].floats[:, begin:end] = logprob[here], entropy[here], top1[here]
            self._found[index].counts[:, begin:end] = rank[here], ties[here], top1_id[here]
            done += end - begin

    def take(self) -> list[tuple[int, bytes, bytes]]:
        """Index, floats and counts of all requests since the last time."""
        found, self._found = self._found, {}
        return [(index, one.floats.tobytes(), one.counts.tobytes()) for index, one in found.items()]


def wanted_of(sampling_params: Any) -> Sequence[int] | None:
    """What a request asks for, None for ordinary ones."""
    return (getattr(sampling_params, "extra_args", None) or {}).get(WANTED)


class PromptLogprobsInV2:
    """Stands in for the V2 runner's `prompt_logprobs_worker`, which receives requests and hidden states."""

    def __init__(self, original: Any, collector: Collector) -> None:
        self._original, self._collector = original, collector
        self._wanted: dict[str, Sequence[int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def add_request(self, req_id: str, req_idx: int, sampling_params: Any) -> None:
        if (wanted := wanted_of(sampling_params)) is not None:
            self._wanted[req_id] = wanted
        self._original.add_request(req_id, req_idx, sampling_params)

    def remove_request(self, req_id: str) -> None:
        self._wanted.pop(req_id, None)
        self._original.remove_request(req_id)

    def compute_prompt_logprobs(
        self, logits_fn: ComputeLogits, hidden_states: torch.Tensor, input_batch: Any, *others: Any
    ) -> Any:
        spans = []
        for i, req_id in enumerate(input_batch.req_ids):
            if (wanted := self._wanted.get(req_id)) is not None:
                offset = int(input_batch.query_start_loc_np[i])
                start = int(input_batch.num_computed_prefill_tokens_np[i])
                spans.append(Span(wanted, offset, start, int(input_batch.num_scheduled_tokens[i])))
        self._collector.collect(spans, hidden_states, logits_fn)
        return self._original.compute_prompt_logprobs(logits_fn, hidden_states, input_batch, *others)


def hook_v1(runner: Any, collector: Collector) -> None:
    """Have the V1 runner's `_get_prompt_logprobs_dict` collect first."""
    original = runner._get_prompt_logprobs_dict

    def collecting(hidden_states: torch.Tensor, num_scheduled_tokens: dict[str, int]) -> Any:
        spans = []
        for req_id, size in num_scheduled_tokens.items():
            request = runner.requests[req_id]
            if (wanted := wanted_of(request.sampling_params)) is not None:
                offset = runner.query_start_loc.np[runner.input_batch.req_id_to_index[req_id]].item()
                spans.append(Span(wanted, offset, request.num_computed_tokens, size))
        collector.collect(spans, hidden_states, runner.model.compute_logits)
        return original(hidden_states, num_scheduled_tokens)

    runner._get_prompt_logprobs_dict = collecting


class StatisticsExtension:
    """Mixed into vLLM's worker class (`worker_extension_cls`); called through `collective_rpc`."""

    def forecast_install(self, vocab_size: int) -> str:
        """Hook into the model runner; returns its kind, "" where there is no known hook."""
        runner: Any = self.model_runner  # type: ignore[attr-defined]
        self._forecast = Collector(vocab_size)
        if hasattr(getattr(runner, "prompt_logprobs_worker", None), "compute_prompt_logprobs"):
            runner.prompt_logprobs_worker = PromptLogprobsInV2(runner.prompt_logprobs_worker, self._forecast)
            return "V2"
        if hasattr(runner, "_get_prompt_logprobs_dict"):
            hook_v1(runner, self._forecast)
            return "V1"
        return ""

    def forecast_take(self) -> list[tuple[int, bytes, bytes]]:
        """See `Collector.take`."""
        return self._forecast.take()
