"""Whether a model read fast gives its own numbers: those of eager attention, one text at a time.

Fast implementations of attention leave out what they do not know (soft-caps, sinks, biases), and batches,
packed rows and kept states are not always taken as they are meant. Which model suffers from what changes with
every version of transformers, so texts are read both ways and their log-probabilities compared.

Two right ways differ by rounding. How much that makes for a model, a dtype and a text is found out by moving
its input embeddings by a unit in the last place, after which all that follows rounds otherwise.
SmolLM2-135M, texts of 10 to 104 tokens, root mean square in nats of sdpa against eager and of embeddings
moved: bf16 0.03 to 0.26 and 0.06 to 1.6, fp32 2e-6 to 1e-5 and 3e-6 to 2e-5.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from forecast.engines.prefix_tree import Tokens

LogProbs = NDArray[np.float32]  # nats

_SAME = 1e-4  # nats; nearer than any number is reported
_NOISE_FACTOR = 3
# Eager attention holds all scores of a layer, thrice for a moment; the rest of a longer text is not compared.
_SCORE_BYTES = 2 << 30


class PlainReading:
    """Reads texts by eager attention, one at a time, and compares."""

    def __init__(self, model: Any, logprobs: Callable[[torch.Tensor, Tokens], LogProbs]) -> None:
        """Args: logprobs: of target tokens [N], from hidden states [N, D]."""
        self._model, self._logprobs = model, logprobs
        self._last: tuple[bytes, LogProbs] | None = None
        heads = getattr(model.config.get_text_config(), "num_attention_heads", None)
        self._longest = int((_SCORE_BYTES / (12 * (heads if isinstance(heads, int) else 64))) ** 0.5)

    def difference(self, ids: Tokens, first: int, found: LogProbs) -> float:
        """Nats by which log-probabilities of `ids[first:]` are off at most, 0 where that may be rounding."""
        found = found[: max(0, self._longest - first)]
        ids = ids[: first + len(found)]
        if len(found) == 0:
            return 0.0
        return self._beyond_rounding(_apart(found, self._plain(ids)[first - 1 :]), ids)

    def change_by_what_follows(self, ids: Tokens) -> float:
        """Nats by which numbers of tokens change with later ones at most, 0 where that may be rounding."""
        ids = ids[: self._longest]
        part = self._read(ids[: 2 * len(ids) // 3])
        return self._beyond_rounding(_apart(part, self._plain(ids)[: len(part)]), ids) if len(part) else 0.0

    def _plain(self, ids: Tokens) -> LogProbs:
        """As `_read`; the text read last is not read again."""
        if self._last is None or self._last[0] != ids.tobytes():
            self._last = ids.tobytes(), self._read(ids)
        return self._last[1]

    def _beyond_rounding(self, off: LogProbs, ids: Tokens) -> float:
        """The largest difference, or 0."""
        if off.max() <= _SAME:
            return 0.0
        plain = self._plain(ids)
        handle = self._model.get_input_embeddings().register_forward_hook(_moved)
        try:
            noise = _apart(self._read(ids), plain)
        finally:
            handle.remove()
        rounding = _size(off) <= _NOISE_FACTOR * _size(noise) or off.max() <= noise.max()
        return 0.0 if rounding else float(off.max())

    @torch.inference_mode()
    def _read(self, ids: Tokens) -> LogProbs:
        """Of all tokens but the first."""
        device = self._model.get_input_embeddings().weight.device
        with _eager(self._model):
            hidden_1LD = self._model.base_model(
                input_ids=torch.from_numpy(ids[None, :-1]).to(device), use_cache=False
            )[0]
        return self._logprobs(hidden_1LD[0], ids[1:])

    def adopt(self) -> bool:
        """Make eager the model's implementation from now on; False if it was."""
        before = [(c._attn_implementation, c._experts_implementation) for c in _configs(self._model)]
        for config in _configs(self._model):
            _set(config, "eager", "eager")
        return any(attention != "eager" or experts not in (None, "eager") for attention, experts in before)


def _configs(model: Any) -> list[Any]:
    """Configurations of a model's modules, those of parts after those of wholes."""
    found = {id(c): c for m in model.modules() if hasattr(c := getattr(m, "config", None), "to_dict")}
    return list(found.values())


def _set(config: Any, attention: str, experts: str | None) -> None:
    # Not `set_attn_implementation`, which leaves families alone that ask their configuration by themselves.
    config._attn_implementation_internal, config._experts_implementation_internal = attention, experts


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Within the block attention and experts are computed step by step, as the model's family writes it."""
    before = [(c, c._attn_implementation, c._experts_implementation) for c in _configs(model)]
    try:
        for config, _, _ in before:
            _set(config, "eager", "eager")
        yield
    finally:
        for each in before:
            _set(*each)


def _moved(_: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor:
    """Each number one unit in its last place up or down."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.randint(0, 2, embedded.shape, generator=generator).to(embedded) * 2 - 1
    return embedded * (1 + torch.finfo(embedded.dtype).eps * sign)


def _apart(ours: LogProbs, theirs: LogProbs) -> LogProbs:
    """Differences without sign: infinite where only theirs is a number, 0 where it is none.

    Eager attention in a narrow dtype overflows where others keep wide sums.
    """
    with np.errstate(invalid="ignore"):
        off: LogProbs = np.abs(ours - theirs)
    off[~np.isfinite(ours)] = np.inf
    off[~np.isfinite(theirs)] = 0
    return off


def _size(off: LogProbs) -> float:
    return float(np.sqrt(np.square(off, dtype=np.float64).mean()))
