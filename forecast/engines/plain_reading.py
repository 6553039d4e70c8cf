"""Whether a model read fast gives its own numbers: those of eager attention, one text at a time.

Fast implementations of attention leave out what they do not know (soft-caps, sinks, biases), and batches,
packed rows and kept states are not always taken as they are meant. Which model suffers from what changes with
every version of transformers, so texts are read both ways and their log-probabilities compared.

Two right ways differ by rounding. How much that makes for a model, a dtype and a text is found out by moving
its input embeddings by a unit in the last place, after which all that follows rounds otherwise.
SmolLM2-135M, texts of 10 to 104 tokens, root mean square in nats of sdpa against eager and of embeddings
moved: bf16 0.03 to 0.26 and 0.06 to 1.6, fp32 2e-6 to 1e-5 and 3e-6 to 2e-5.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from forecast.engines.prefix_tree import Tokens

LogProbs = NDArray[np.float32]  # nats

_SAME = 1e-4  # nats; nearer than any number is reported
_SAME_STATES = 1e-5  # relative to the largest; fp32 comes to 1e-6
_NOISE_FACTOR = 3
# Eager attention holds all scores of a layer, thrice for a moment; the rest of a longer text is not compared.
_SCORE_BYTES = 2 << 30


class PlainReading:
    """Reads texts by eager attention, one at a time, and compares."""

    def __init__(
        self, model: Any, logprobs: Callable[[torch.Tensor, Tokens], LogProbs], by_length: bool
    ) -> None:
        """What to read, and how.

        Args:
            logprobs: of target tokens [N], from hidden states [N, D].
            by_length: positions are encoded by the length of a text, so none is compared in part.
        """
        self._model, self._logprobs, self._by_length = model, logprobs, by_length
        self._last: tuple[bytes, LogProbs] | None = None
        heads = getattr(model.config.get_text_config(), "num_attention_heads", None)
        self._longest = int((_SCORE_BYTES / (12 * (heads if isinstance(heads, int) else 64))) ** 0.5)

    def difference(self, ids: Tokens, first: int, found: LogProbs) -> float:
        """Nats by which log-probabilities of `ids[first:]` are off at most, 0 where that may be rounding."""
        if self._by_length and len(ids) > self._longest:
            return 0.0
        found = found[: max(0, self._longest - first)]
        ids = ids[: first + len(found)]
        if len(found) == 0:
            return 0.0
        return self._beyond_rounding(_apart(found, self._plain(ids)[first - 1 :]), ids)

    def change_by_what_follows(self, ids: Tokens) -> float:
        """Nats by which numbers of tokens change with later ones at most, 0 where that may be rounding."""
        ids = ids[: self._longest]
        if len(ids) < 4:
            return 0.0
        part = self._read(ids[: 2 * len(ids) // 3])
        return self._beyond_rounding(_apart(part, self._plain(ids)[: len(part)]), ids)

    def read_less(self) -> bool:
        """Half as much of each text from now on; False if nothing would be left."""
        self._longest //= 2
        return self._longest > 1

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
        with _eager(self._model):
            hidden_1LD = self._model.base_model(input_ids=self._tensor(ids[None]), use_cache=False)[0][:, :-1]
        return self._logprobs(hidden_1LD[0], ids[1:])

    def _tensor(self, ids: Tokens) -> torch.Tensor:
        return torch.from_numpy(ids).to(self._model.get_input_embeddings().weight.device)

    @torch.inference_mode()
    def attention_is_whole(self, ids: Tokens) -> bool:
        """Whether the attention in use gives each layer what eager attention gives it, both computed in fp32.

        In a narrow dtype rounding hides what a soft-cap does to a text, though not what it does to all texts.
        True where that cannot be asked.
        """
        name = self._model.config._attn_implementation
        if name not in ALL_ATTENTION_FUNCTIONS:
            return True
        used, off = ALL_ATTENTION_FUNCTIONS[name], [0.0]

        def both(
            module: Any,
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            attention_mask: torch.Tensor | None = None,
            **options: Any,
        ) -> Any:
            with suppress(
                Exception
            ):  # of families that call it otherwise; what it does to texts is seen anyway
                eager = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
                wide = query.float(), key.float(), value.float()
                theirs = eager(module, *wide, _additive(attention_mask, query, key), **options)[0]
                ours = used(module, *wide, attention_mask=_wide(attention_mask), **options)[0]
                off.append(((ours - theirs).abs().max() / theirs.abs().max()).item())
            return used(module, query, key, value, attention_mask=attention_mask, **options)

        own = ALL_ATTENTION_FUNCTIONS._local_mapping
        before = dict(own)
        ALL_ATTENTION_FUNCTIONS[name] = both
        try:
            self._model.base_model(input_ids=self._tensor(ids[None]), use_cache=False)
        finally:
            own.clear()
            own.update(before)
        return max(off) <= _SAME_STATES

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


def _wide(mask: torch.Tensor | None) -> torch.Tensor | None:
    return mask.float() if mask is not None and mask.is_floating_point() else mask


def _additive(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """A mask as eager attention takes it; none means that nothing later is seen."""
    if mask is not None and mask.is_floating_point():
        return mask.float()
    if mask is None:
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()[
            None, None
        ]
    return torch.zeros(mask.shape, device=query.device).masked_fill(~mask, torch.finfo(torch.float32).min)


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
