"""Engine on torch and transformers: one forward pass, output head at the scored positions only."""

import gc
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from forecast.config import EngineConfig
from forecast.encoding import Encoded
from forecast.engines.base import EngineFacts, SequenceStats
from forecast.engines.variants import drop_layers, quantize_weights
from forecast.errors import CandidateError
from forecast.inputs.candidates import Candidate, ModelFiles, locate_files
from forecast.tokenstats.fused import token_stats

# Sequences of one batch together, padding included. On CPUs throughput peaks at small batches (measured on SmolLM2-135M,
# 2 cores, bf16: 982, 1063 and 840 tokens/s at 1, 4 and 16 sequences of about 150 tokens); GPUs need large ones.
_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
# The self-check compares two computations of the same logits; they differ by rounding only.
_HEAD_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 0.25}


class TorchEngine:
    """A candidate loaded through transformers."""

    def __init__(self, candidate: Candidate, config: EngineConfig) -> None:
        """Load tokenizer and weights, apply the variant, check that the head is understood.

        Raises:
            CandidateError: the candidate cannot be loaded, or its files are not the ones that were planned.
        """
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._name = candidate.name
        self._device = _device(config.device)
        self._batch_tokens = config.batch_tokens or _BATCH_TOKENS.get(self._device.type, 4096)
        files = locate_files(candidate.settings)
        if files.digest() != candidate.files_digest:
            raise CandidateError(f"candidate {self._name!r}: its files changed while the run was going on; run it again")
        self.tokenizer = load_tokenizer(candidate, files)
        self._model = _load_model(candidate, files)
        if candidate.settings.drop_layers:
            drop_layers(self._model, candidate.settings.drop_layers)
        if candidate.settings.quantize is not None:
            quantize_weights(self._model, candidate.settings.quantize)
        self._model.to(self._device)
        self._body = _body(self._model, self._name)
        head = self._model.get_output_embeddings()
        text_config = self._model.config.get_text_config()
        vocab_size = _vocab_size(candidate, self.tokenizer, head.weight.shape[0])
        self._head = head.weight[:vocab_size]
        self._bias = None if getattr(head, "bias", None) is None else head.bias[:vocab_size]
        self._logit_scale = _logit_scale(text_config)
        self._softcap = getattr(text_config, "final_logit_softcapping", None)
        self.facts = EngineFacts(
            vocab_size=vocab_size,
            parameters=sum(p.numel() for p in self._model.parameters()),
            context_length=candidate.settings.context_length or context_length(text_config),
            device=str(self._device),
            versions={"torch": torch.__version__, "transformers": transformers.__version__},
        )
        self._check_head()

    def score(self, sequences: Sequence[Encoded]) -> list[SequenceStats]:
        """See `Engine.score`; sequences of similar length share a batch, whatever their order."""
        results: list[SequenceStats | None] = [None] * len(sequences)
        for batch in _batches(sequences, self._batch_tokens):
            stats = self._score_batch([sequences[i] for i in batch])
            for i, one in zip(batch, stats, strict=True):
                results[i] = one
        return [one for one in results if one is not None]

    @torch.inference_mode()
    def _score_batch(self, batch: list[Encoded]) -> list[SequenceStats]:
        lengths = [len(one.input_ids) for one in batch]
        ids_BL = torch.zeros(len(batch), max(lengths), dtype=torch.long)
        for row, one in enumerate(batch):
            ids_BL[row, : lengths[row]] = torch.from_numpy(one.input_ids)
        # Right padding: a causal model's earlier positions never see it. The mask is passed where there is any, so that
        # models whose layers are not causal in the strict sense (state-space scans, experts) leave it out too.
        mask_BL = None
        if min(lengths) < max(lengths):
            mask_BL = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long().to(self._device)
        hidden_BLD = self._hidden(ids_BL.to(self._device), mask_BL)
        rows = [row for row, one in enumerate(batch) for _ in one.n_bytes]
        columns = [column for one in batch for column in range(one.first_scored, len(one.input_ids))]
        targets_N = ids_BL[rows, columns].to(self._device)
        hidden_ND = hidden_BLD[rows, [column - 1 for column in columns]]
        stats = token_stats(
            hidden_ND,
            self._head,
            targets_N,
            bias=self._bias,
            logit_scale=self._logit_scale,
            softcap=self._softcap,
        )
        arrays = [tensor.cpu().numpy() for tensor in stats]
        results, start = [], 0
        for one in batch:
            part = slice(start, start + len(one.n_bytes))
            results.append(SequenceStats(*(array[part] for array in arrays)))
            self._check_finite(one, results[-1])
            start = part.stop
        return results

    def _hidden(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor | None) -> torch.Tensor:
        return self._body(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False)[0]

    def _check_finite(self, one: Encoded, stats: SequenceStats) -> None:
        bad = np.flatnonzero(~(np.isfinite(stats.logprob) & np.isfinite(stats.entropy)))
        if len(bad):
            trajectory = one.trajectory
            raise CandidateError(
                f"candidate {self._name!r}: NaN or infinite logits at solution token {one.first_position + int(bad[0])} "
                f"of instance {trajectory.instance_id!r}, task {trajectory.task!r}; the weights may be damaged, "
                "or the dtype may be too narrow for this model"
            )

    @torch.inference_mode()
    def _check_head(self) -> None:
        """Our head (scale, soft-cap, bias) must give the logits that the model itself gives."""
        ids = torch.arange(min(8, self.facts.vocab_size), device=self._device)[None]
        ours = torch.nn.functional.linear(self._hidden(ids, None), self._head, self._bias).float() * self._logit_scale
        if self._softcap is not None:
            ours = torch.tanh(ours / self._softcap) * self._softcap
        theirs = self._model(input_ids=ids, use_cache=False).logits[..., : self.facts.vocab_size].float()
        difference = (ours - theirs).abs().max().item()
        if math.isnan(difference) and not bool(torch.isfinite(theirs).all()):
            raise CandidateError(f"candidate {self._name!r}: NaN or infinite logits on a prompt of {ids.shape[1]} tokens")
        limit = _HEAD_TOLERANCE[self._head.dtype] * max(1.0, theirs.abs().max().item() / 10)
        if not difference <= limit:
            raise CandidateError(
                f"candidate {self._name!r}: the output head of {type(self._model).__name__} does something that this "
                f"engine does not know (logits differ by {difference:.3g} from the model's own)"
            )

    def close(self) -> None:
        """Give the memory back before the next candidate is loaded."""
        self._model = self._body = self._head = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def load_tokenizer(candidate: Candidate, files: ModelFiles | None = None) -> Any:
    """The candidate's tokenizer.

    Raises:
        CandidateError: it cannot be loaded.
    """
    files = files or locate_files(candidate.settings)
    try:
        return AutoTokenizer.from_pretrained(
            files.folder,
            gguf_file=files.gguf.name if files.gguf else None,
            trust_remote_code=candidate.settings.allow_remote_code,
            local_files_only=True,
        )
    except Exception as error:  # transformers raises what its many parsers raise
        raise CandidateError(
            f"candidate {candidate.name!r}: its tokenizer cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def context_length(text_config: Any) -> int | None:
    """The longest sequence by the model's configuration; None where it states no limit."""
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        value = getattr(text_config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _load_model(candidate: Candidate, files: ModelFiles) -> Any:
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            files.folder,
            gguf_file=files.gguf.name if files.gguf else None,
            dtype=getattr(torch, candidate.dtype),
            trust_remote_code=candidate.settings.allow_remote_code,
            use_safetensors=None if files.gguf or candidate.settings.allow_pickle else True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise CandidateError(
            f"candidate {candidate.name!r}: its weights cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    # transformers fills what the files lack with random numbers and only warns.
    if missing := sorted(report.get("missing_keys", ())):
        raise CandidateError(
            f"candidate {candidate.name!r}: missing weights: {', '.join(missing[:5])}"
            + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        )
    if mismatched := report.get("mismatched_keys"):
        raise CandidateError(f"candidate {candidate.name!r}: weights of a wrong shape: {list(mismatched)[:5]}")
    return model.eval()


def _body(model: Any, name: str) -> Any:
    body = model.base_model
    if body is model:
        raise CandidateError(f"candidate {name!r}: {type(model).__name__} has no body apart from its head")
    return body


def _device(requested: str) -> torch.device:
    if requested != "auto":
        return torch.device(requested)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _vocab_size(candidate: Candidate, tokenizer: Any, rows: int) -> int:
    """Real entries of the output matrix: rows behind the tokenizer's last id are padding for the hardware's sake."""
    if candidate.settings.vocab_size is not None:
        size = candidate.settings.vocab_size
    else:
        size = min(rows, max(tokenizer.get_vocab().values()) + 1)
    if size > rows:
        raise CandidateError(f"candidate {candidate.name!r}: vocab_size {size} is more than the output matrix has ({rows})")
    return size


def _logit_scale(text_config: Any) -> float:
    if (scale := getattr(text_config, "logit_scale", None)) is not None:
        return float(scale)
    if (divisor := getattr(text_config, "logits_scaling", None)) is not None:
        return 1.0 / float(divisor)
    return 1.0


def _batches(sequences: Sequence[Encoded], budget: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, each at most `budget` tokens with padding (but at least one sequence)."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i].input_ids), reverse=True)
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * len(sequences[batch[0]].input_ids) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
