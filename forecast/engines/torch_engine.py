"""Engine on torch and transformers: each common beginning read once, output head at scored positions only.

That the model is causal, that its output head is understood, and whether beginnings can be shared, is checked
when it is loaded. How sequences are batched and shared: `forecast.engines.prefix_reader`. Whether that and
the attention in use leave the numbers as they are is checked then, and again with each text that is longer
than all before it, for windows show in long texts only: `forecast.engines.plain_reading`.
"""

import gc
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from torch import nn

from forecast.config.schema import EngineConfig
from forecast.engines.base import EngineFacts, SequenceStats
from forecast.engines.checks import check_finite, check_ids, real_vocab_size
from forecast.engines.encode import Encoded
from forecast.engines.head_check import HEAD_TOLERANCE, head_difference, relative_difference
from forecast.engines.hf_loading import load_candidate
from forecast.engines.lengths import context_length, depends_on_the_batch, forget_longest, reach
from forecast.engines.parameter_counts import parameters_of
from forecast.engines.plain_reading import LogProbs, PlainReading
from forecast.engines.prefix_reader import (
    PrefixReader,
    can_share,
    fits_no_table,
)
from forecast.engines.prefix_tree import Tokens
from forecast.engines.reading_costs import reading_costs
from forecast.engines.size_limits import out_of_memory
from forecast.engines.variants import body_and_head, make_variant, named_candidate
from forecast.errors import CandidateError, PassingError
from forecast.inputs.models.resolve import Candidate
from forecast.tokenstats import TokenStats, token_stats
from forecast.tokenstats.onednn_linear import speed_up

# Tokens of one batch, padding included. On CPUs small batches win: SmolLM2-135M on GSM8K solutions of about
# 200 tokens (AMD EPYC 9005, torch 2.13), throughput at 512, 2048 and 8192 relative to one sequence at a
# time: fp32 1.02, 0.88, 0.67 and bf16 1.03, 0.88, 0.60 on one thread; fp32 0.97, 0.98, 0.83 and bf16 1.03,
# 0.96, 0.64 on two. There the statistics add 1 % (fp32) or 5 % (bf16) to forward pass and output head.
# GPUs: not measured.
_BATCH_TOKENS = {"cpu": 512, "cuda": 16384}
# Families' names for one thing: Gemma's, RecurrentGemma's, xLSTM's.
_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
_PROBE_TOKENS, _LEAST_PROBE = 64, 7
_DTYPES = (
    np.float32,
    np.float32,
    np.int32,
    np.int32,
    np.float32,
    np.int32,
)  # of the statistics, in their order
# The self-check compares two computations of the same numbers, relative to the largest: rounding only.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


class _Checked(NamedTuple):
    """Of what was compared with plain numbers: the longest text, and the farthest place in a shared row."""

    text: int = 0
    row: int = 0


class TorchEngine:
    """A candidate loaded through transformers."""

    def __init__(self, candidate: Candidate, config: EngineConfig) -> None:
        """Load tokenizer and weights, apply the variant, check that the model is understood.

        Raises:
            CandidateError: the candidate cannot be loaded, its files are not the ones that were planned,
                its settings do not fit it, or its model is of a kind that this engine does not know.
        """
        self._name = candidate.name
        self._device = _device(config.device)
        self._batch_tokens = config.batch_tokens or _BATCH_TOKENS.get(self._device.type, 4096)
        self._share_prefixes = config.share_prefixes
        self._model, self.tokenizer = load_candidate(candidate)
        make_variant(self._model, candidate, self._device)
        speed_up(self._model)
        with named_candidate(self._name):
            self._body, head = body_and_head(self._model)
        text_config = self._model.config.get_text_config()
        vocab_size = real_vocab_size(candidate, self.tokenizer, head.weight.shape[0])
        self._head = head.weight[:vocab_size]
        self._bias = None if getattr(head, "bias", None) is None else head.bias[:vocab_size]
        self._logit_scale = _logit_scale(text_config)
        self._softcap = next((c for key in _SOFTCAPS if (c := getattr(text_config, key, None))), None)
        self._input_rows = self._model.get_input_embeddings().weight.shape[0]
        parameters, embedding = parameters_of(self._model)
        self.facts = EngineFacts(
            vocab_size=vocab_size,
            parameters=parameters,
            input_embedding=embedding,
            context_length=context_length(
                self._name, candidate.settings.context_length, self._body, text_config
            ),
            device=str(self._device),
            versions={"torch": torch.__version__, "transformers": transformers.__version__},
        )
        try:
            self._check_model()
        except Exception as error:  # what a model's code raises
            if isinstance(error, CandidateError | torch.AcceleratorError) or out_of_memory(error):
                raise
            raise CandidateError(
                f"candidate {self._name!r}: {type(self._model).__name__} cannot read a short text "
                f"({type(error).__name__}: {error}); complete its config.json"
            ) from error
        self._by_length = depends_on_the_batch(text_config)
        self._plain: Any = PlainReading(self._model, self._logprobs, self._by_length)
        self._checked = _Checked()
        self._reader: PrefixReader | None = None
        self._make_reader(text_config)

    def score(self, sequences: Sequence[Encoded]) -> list[SequenceStats]:
        """See `Engine.score`; the order of the sequences changes nothing.

        Raises:
            CandidateError: a token id that the model does not have, or logits that are NaN or infinite.
        """
        check_ids(self._name, self.tokenizer, sequences, self._input_rows, self.facts.vocab_size)
        if self._reader is None:
            raise RuntimeError("the engine is closed")
        if not sequences:
            return []
        results = self._read([one.input_ids for one in sequences], [one.first_scored for one in sequences])
        check_finite(self._name, sequences, results)
        return results

    def _read(self, ids: Sequence[Tokens], firsts: Sequence[int]) -> list[SequenceStats]:
        """Statistics of `ids[i][firsts[i]:]`, read the fastest way that gives the model's own numbers.

        Raises:
            CandidateError: the texts cannot be read, or get other numbers each time.
        """
        assert self._reader is not None
        while True:
            try:
                results = self._read_once(ids, firsts)
            except Exception as error:  # what a model's code raises
                self._after(error, max(map(len, ids)))
                continue
            try:
                off = self._difference(ids, firsts, results)
            except Exception as error:  # what a model's code raises
                if not (out_of_memory(error) and self._plain.read_less()):
                    raise
                self._collect()
                continue
            if off == 0:
                return results
            if not (self._reader.stop_sharing() or self._plain.adopt() or self._reader.stop_batching()):
                raise CandidateError(
                    f"candidate {self._name!r}: its log-probabilities of one text differ by up to {off:.2g} "
                    "nats from one reading to the next; only models that compute the same again can be scored"
                )

    def _difference(
        self, ids: Sequence[Tokens], firsts: Sequence[int], results: Sequence[SequenceStats]
    ) -> float:
        """Nats by which the longest text so far, or the farthest in a shared row, is off."""
        assert self._reader is not None
        longest = max(range(len(ids)), key=lambda i: len(ids[i]))
        place, farthest = self._reader.farthest
        lengths = _Checked(len(ids[longest]), place)
        check = set()
        if lengths.text > self._checked.text:
            self._check_what_follows(ids[longest])
            check.add(longest)
        if lengths.row > self._checked.row:
            check.add(farthest)
        off = max((self._plain.difference(ids[i], firsts[i], results[i].logprob) for i in check), default=0.0)
        if off == 0:
            self._checked = _Checked(*map(max, zip(lengths, self._checked, strict=True)))
        return off

    def _check_what_follows(self, ids: Tokens) -> None:
        """Refuse a model whose numbers for a token are others when the text goes on.

        Those that encode positions by the length of a text are read as they are meant.
        """
        off = 0.0 if self._by_length else self._plain.change_by_what_follows(ids)
        if off > 0:
            raise CandidateError(
                f"candidate {self._name!r}: {type(self._model).__name__} gives a token other probabilities "
                f"when other text follows it (by up to {off:.2g} nats in a text of {len(ids)} tokens); set "
                "its context_length lower, to score shorter texts only"
            )

    def _read_once(self, ids: Sequence[Tokens], firsts: Sequence[int]) -> list[SequenceStats]:
        assert self._reader is not None
        counts = [len(own) - first for own, first in zip(ids, firsts, strict=True)]
        begins = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        first = np.asarray(firsts, dtype=np.int64)
        flat = [np.full(begins[-1], np.nan if dtype is np.float32 else 0, dtype) for dtype in _DTYPES]
        with torch.inference_mode():
            for found in self._reader.read(ids, firsts):
                where = zip(found.sequence, found.position, strict=True)
                targets = np.fromiter((ids[i][p] for i, p in where), np.int64, len(found.position))
                places = begins[found.sequence] + found.position - first[found.sequence]
                for array, tensor in zip(flat, self._statistics(found.hidden, targets), strict=True):
                    array[places] = tensor.cpu().numpy()
        parts = [np.split(array, begins[1:-1]) for array in flat]
        return [SequenceStats(*arrays) for arrays in zip(*parts, strict=True)]

    def _after(self, error: Exception, longest: int) -> None:
        """Prepare to read once more, more modestly.

        Raises:
            CandidateError: the texts cannot be read.
            Exception: the error itself, where the candidate may not be at fault.
        """
        assert self._reader is not None
        if out_of_memory(error):
            self._read_less_at_once(longest, error)
        elif not self._reader.stop_sharing():
            if not fits_no_table(error):
                raise error
            raise CandidateError(
                f"candidate {self._name!r}: it cannot read a text of {longest} tokens "
                f"({type(error).__name__}: {error}); set its context_length to what it can read"
            ) from error

    def _read_less_at_once(self, longest: int, error: BaseException) -> None:
        """Half the batch from now on, then nothing shared; after that nothing smaller is left to try.

        Raises:
            CandidateError: one sequence by itself does not fit.
        """
        assert self._reader is not None
        self._reader.forget()
        self._collect()
        if self._reader.batch_tokens > longest:
            self._reader.batch_tokens = max(longest, self._reader.batch_tokens // 2)
        elif not self._reader.stop_sharing():
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise PassingError(
                f"candidate {self._name!r}: a sequence of {longest} tokens does not fit the memory of "
                f"{self._device} ({first_line}); take a device with more, a smaller dtype, or engine vllm "
                "with tensor parallelism"
            )

    def _statistics(self, hidden: torch.Tensor, targets: Tokens) -> TokenStats:
        return token_stats(
            hidden.to(self._head.dtype),  # state-space models keep theirs in fp32, and round them here, too
            self._head,
            torch.from_numpy(targets).to(self._device),
            bias=self._bias,
            logit_scale=self._logit_scale,
            softcap=self._softcap,
        )

    def _logprobs(self, hidden: torch.Tensor, targets: Tokens) -> LogProbs:
        """Of prompts too, whose tokens the output head may not have."""
        known = targets < len(self._head)
        found = np.zeros(len(targets), np.float32)
        found[known] = self._statistics(hidden[torch.from_numpy(known).to(hidden.device)], targets[known])[
            0
        ].cpu()
        return found

    @torch.inference_mode()
    def _check_model(self) -> None:
        """Refuse a model whose output head is more than we compute, or whose positions see later ones.

        Numbers that are not finite are left for `score` to report, which can say where they stand.
        """
        length = min(8, self.facts.vocab_size, self.facts.context_length or 8)
        ids_1L = torch.arange(length, device=self._device)[None]
        hidden_1LD = self._body(input_ids=ids_1L, use_cache=False)[0]
        difference = head_difference(self._model, ids_1L, self._product, self._capped)
        if difference > HEAD_TOLERANCE[self._head.dtype]:
            raise CandidateError(
                f"candidate {self._name!r}: the output head of {type(self._model).__name__} computes "
                "something that this engine does not support "
                f"(logits are off by {difference:.2g} of the largest)"
            )
        changed_1L = ids_1L.clone()
        changed_1L[0, -1] = 0
        changed_1LD = self._body(input_ids=changed_1L, use_cache=False)[0]
        if relative_difference(changed_1LD[:, :-1], hidden_1LD[:, :-1]) > _TOLERANCE[self._head.dtype]:
            raise CandidateError(
                f"candidate {self._name!r}: {type(self._model).__name__} sees later tokens too, so it gives "
                "no next-token probabilities; only causal language models can be candidates"
            )

    def _product(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = nn.functional.linear(hidden.to(self._head.dtype), self._head, self._bias)
        return logits.float() * self._logit_scale

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    @torch.inference_mode()
    def _make_reader(self, text_config: Any) -> None:
        """A reader that shares common beginnings where that leaves the model's numbers as they are."""
        limits = [limit for limit in (reach(text_config), self.facts.context_length) if limit is not None]
        if self._by_length:
            self._body.register_forward_pre_hook(forget_longest)
        self._reader = PrefixReader(self._body, self._device, 1 if self._by_length else self._batch_tokens)
        self._reader.whole = self._by_length
        vocabulary = min(self.facts.vocab_size, self._input_rows)
        length = min(_PROBE_TOKENS, vocabulary, self.facts.context_length or _PROBE_TOKENS)
        probe = np.random.default_rng(0).permutation(vocabulary)[:length].astype(np.int64)
        if length > 2:
            if not self._plain.attention_is_whole(probe):
                self._plain.adopt()
            self._read([probe, probe[: length // 2 : -1]], [1, 1])
        # A fork of the probe, see `can_share`, makes a row half as long again.
        probe = probe[: min([length, *(limit * 2 // 3 for limit in limits)])]
        if self._by_length or not self._share_prefixes or len(probe) < _LEAST_PROBE:
            return
        if can_share(self._body, self._device, probe, _TOLERANCE[self._head.dtype]):
            costs = reading_costs(self._body, text_config, self._device, min(limits, default=math.inf))
            self._reader = PrefixReader(
                self._body, self._device, self._reader.batch_tokens, costs, reach(text_config)
            )

    def close(self) -> None:
        """Give the memory back; a small base model stays for further variants, see `load_candidate`."""
        self._model = self._body = self._head = self._bias = self._plain = None
        self._reader = None
        self._collect()

    def _collect(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _device(requested: str) -> torch.device:
    if requested != "auto":
        return torch.device(requested)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _logit_scale(text_config: Any) -> float:
    """Product of the factors that models put on their logits (Cohere, Falcon-H1; Granite divides)."""
    scale = 1.0
    for key, power in (("logit_scale", 1), ("lm_head_multiplier", 1), ("logits_scaling", -1)):
        value = getattr(text_config, key, None)
        if isinstance(value, int | float):
            scale *= value**power
    return scale
