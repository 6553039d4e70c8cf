"""Engine on torch and transformers: one forward pass, output head at the scored positions only.

Sequences of a batch are padded on the right and no mask is passed: a causal model's earlier positions
cannot see what follows them. That the model is causal, and that its output head is understood, is checked
when it is loaded.

Legend: B sequences of a batch, L its longest length, D hidden size, V vocabulary, N scored tokens of the
batch.
"""

import gc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from forecast.config import EngineConfig
from forecast.encoding import Encoded
from forecast.engines.base import EngineFacts, SequenceStats
from forecast.engines.loading import load_candidate
from forecast.engines.variants import drop_layers, quantize_weights
from forecast.errors import CandidateError
from forecast.inputs.candidates import Candidate
from forecast.tokenstats.fused import token_stats

# Tokens of one batch, padding included. On CPUs small batches win: SmolLM2-135M on GSM8K solutions of about
# 200 tokens (AMD EPYC 9005, torch 2.13), throughput at 512, 2048 and 8192 relative to one sequence at a
# time: fp32 1.02, 0.88, 0.67 and bf16 1.03, 0.88, 0.60 on one thread; fp32 0.97, 0.98, 0.83 and bf16 1.03,
# 0.96, 0.64 on two. There the statistics add 1 % (fp32) or 5 % (bf16) to forward pass and output head.
# GPUs: not measured.
_BATCH_TOKENS = {"cpu": 512, "cuda": 16384}
# The self-check compares two computations of the same numbers, relative to the largest: rounding only.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# Names that transformers gives to tables of learned positions.
_POSITION_TABLES = {"wpe", "embed_positions", "position_embeddings"}


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
        self._model, self.tokenizer = load_candidate(candidate)
        self._make_variant(candidate)
        self._body, head = self._model.base_model, self._model.get_output_embeddings()
        if self._body is self._model or head is None:
            raise CandidateError(
                f"candidate {self._name!r}: {type(self._model).__name__} is not a body with an output head"
            )
        text_config = self._model.config.get_text_config()
        vocab_size = _vocab_size(candidate, self.tokenizer, head.weight.shape[0])
        self._head = head.weight[:vocab_size]
        self._bias = None if getattr(head, "bias", None) is None else head.bias[:vocab_size]
        self._logit_scale = _logit_scale(text_config)
        self._softcap = getattr(text_config, "final_logit_softcapping", None)
        self._input_rows = self._model.get_input_embeddings().weight.shape[0]
        self.facts = EngineFacts(
            vocab_size=vocab_size,
            parameters=sum(p.numel() for p in self._model.parameters()),
            context_length=_context_length(candidate, self._body, text_config),
            device=str(self._device),
            versions={"torch": torch.__version__, "transformers": transformers.__version__},
        )
        self._check_model()

    def _make_variant(self, candidate: Candidate) -> None:
        try:
            if candidate.settings.drop_layers:
                drop_layers(self._model, candidate.settings.drop_layers)
            self._model.to(self._device)
            if candidate.settings.quantize is not None:
                quantize_weights(self._model, candidate.settings.quantize)
        except CandidateError as error:
            raise CandidateError(f"candidate {self._name!r}: {error}") from None

    def score(self, sequences: Sequence[Encoded]) -> list[SequenceStats]:
        """See `Engine.score`; sequences of similar length share a batch, whatever their order.

        Raises:
            CandidateError: a token id that the model does not have, or logits that are NaN or infinite.
        """
        for one in sequences:
            self._check_ids(one)
        results: list[SequenceStats | None] = [None] * len(sequences)
        for batch in _batches(sequences, self._batch_tokens):
            stats = self._score_batch([sequences[i] for i in batch])
            for i, one_stats in zip(batch, stats, strict=True):
                results[i] = one_stats
        return [one_stats for one_stats in results if one_stats is not None]

    @torch.inference_mode()
    def _score_batch(self, batch: list[Encoded]) -> list[SequenceStats]:
        # Padding repeats a sequence's own last token: attention weighs it with 0, but 0 times NaN or infinity
        # is NaN, so a token that the sequence does not hold could spoil it.
        longest = max(len(one.input_ids) for one in batch)
        ids_BL = np.stack([np.pad(one.input_ids, (0, longest - len(one.input_ids)), "edge") for one in batch])
        counts = [len(one.n_bytes) for one in batch]
        rows_N = np.repeat(np.arange(len(batch)), counts)
        columns_N = np.concatenate([np.arange(one.first_scored, len(one.input_ids)) for one in batch])
        hidden_BLD = self._hidden(torch.from_numpy(ids_BL).to(self._device))
        stats = token_stats(
            hidden_BLD[torch.from_numpy(rows_N), torch.from_numpy(columns_N - 1)],
            self._head,
            torch.from_numpy(ids_BL[rows_N, columns_N]).to(self._device),
            bias=self._bias,
            logit_scale=self._logit_scale,
            softcap=self._softcap,
        )
        ends = np.cumsum(counts)[:-1]
        parts = [np.split(tensor.cpu().numpy(), ends) for tensor in stats]
        results = [SequenceStats(*arrays) for arrays in zip(*parts, strict=True)]
        for one, one_stats in zip(batch, results, strict=True):
            self._check_finite(one, one_stats)
        return results

    def _hidden(self, ids_BL: torch.Tensor) -> torch.Tensor:
        return self._body(input_ids=ids_BL, use_cache=False)[0]

    def _check_ids(self, one: Encoded) -> None:
        # A foreign tokenizer would end in an IndexError, or on a GPU take the whole process with it.
        limits = np.full(len(one.input_ids), self._input_rows)
        limits[one.first_scored :] = min(self._input_rows, self.facts.vocab_size)
        bad = np.flatnonzero(one.input_ids >= limits)
        if len(bad):
            token = int(one.input_ids[bad[0]])
            raise CandidateError(
                f"candidate {self._name!r}: token {token} ({self.tokenizer.convert_ids_to_tokens(token)!r}) "
                f"at position {bad[0]} of instance {one.trajectory.instance_id!r}, task "
                f"{one.trajectory.task!r}, is outside the vocabulary of {limits[bad[0]]}; "
                "the tokenizer does not belong to this model, or vocab_size is too low"
            )

    def _check_finite(self, one: Encoded, stats: SequenceStats) -> None:
        bad = np.flatnonzero(~(np.isfinite(stats.logprob) & np.isfinite(stats.entropy)))
        if len(bad):
            raise CandidateError(
                f"candidate {self._name!r}: NaN or infinite logits at solution token "
                f"{one.first_position + bad[0]} of instance {one.trajectory.instance_id!r}, task "
                f"{one.trajectory.task!r}; the weights may be damaged, or the dtype too narrow for this model"
            )

    @torch.inference_mode()
    def _check_model(self) -> None:
        """Refuse a model whose output head is more than we compute, or whose positions see later ones.

        Numbers that are not finite are left for `score` to report, which can say where they stand.
        """
        length = min(8, self.facts.vocab_size, self.facts.context_length or 8)
        ids_1L = torch.arange(length, device=self._device)[None]
        hidden_1LD = self._hidden(ids_1L)
        ours = nn.functional.linear(hidden_1LD, self._head, self._bias).float() * self._logit_scale
        if self._softcap is not None:
            ours = torch.tanh(ours / self._softcap) * self._softcap
        theirs = self._model(input_ids=ids_1L, use_cache=False).logits[..., : self.facts.vocab_size].float()
        if (difference := _difference(ours, theirs)) > _TOLERANCE[self._head.dtype]:
            raise CandidateError(
                f"candidate {self._name!r}: the output head of {type(self._model).__name__} does something "
                f"that this engine does not know (logits are off by {difference:.2g} of the largest)"
            )
        changed_1L = ids_1L.clone()
        changed_1L[0, -1] = 0
        if _difference(self._hidden(changed_1L)[:, :-1], hidden_1LD[:, :-1]) > _TOLERANCE[self._head.dtype]:
            raise CandidateError(
                f"candidate {self._name!r}: {type(self._model).__name__} sees later tokens too, so it gives "
                "no next-token probabilities; only causal language models can be candidates"
            )

    def close(self) -> None:
        """Give the memory back; a small base model stays for further variants, see `load_candidate`."""
        self._model = self._body = self._head = self._bias = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _device(requested: str) -> torch.device:
    if requested != "auto":
        return torch.device(requested)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _vocab_size(candidate: Candidate, tokenizer: Any, rows: int) -> int:
    """Real entries of the output matrix: rows behind the tokenizer's last id are padding for the hardware."""
    size = candidate.settings.vocab_size
    if size is None:
        return min(rows, max(tokenizer.get_vocab().values()) + 1)
    if size > rows:
        raise CandidateError(
            f"candidate {candidate.name!r}: vocab_size {size} is more than the output matrix has ({rows})"
        )
    return size


def _context_length(candidate: Candidate, body: nn.Module, text_config: Any) -> int | None:
    """The longest sequence: as configured, else by the model's own configuration; None without a limit."""
    tables = [
        module.num_embeddings
        for name, module in body.named_modules()
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _POSITION_TABLES
    ]
    wanted = candidate.settings.context_length
    if wanted is not None:
        if tables and wanted > min(tables):
            raise CandidateError(
                f"candidate {candidate.name!r}: context_length {wanted} is more than its table of positions "
                f"has ({min(tables)})"
            )
        return wanted
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length"):
        value = getattr(text_config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _logit_scale(text_config: Any) -> float:
    """Product of the factors that models put on their logits (Cohere, Falcon-H1; Granite divides)."""
    scale = 1.0
    for key, power in (("logit_scale", 1), ("lm_head_multiplier", 1), ("logits_scaling", -1)):
        value = getattr(text_config, key, None)
        if isinstance(value, int | float):
            scale *= value**power
    return scale


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference where both are finite, relative to the largest value of `theirs` there."""
    finite = torch.isfinite(ours) & torch.isfinite(theirs)
    if not bool(finite.any()):
        return 0.0
    ours, theirs = ours[finite].float(), theirs[finite].float()
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)).item()


def _batches(sequences: Sequence[Encoded], budget: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, each of at most `budget` tokens with padding, or one sequence."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i].input_ids), reverse=True)
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * len(sequences[batch[0]].input_ids) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
