"""How far a model reads: its table of positions, and the windows that hide what lies further back."""

import re
from typing import Any

from torch import nn

from forecast.errors import CandidateError

# Names that transformers gives to tables of positions, learned or computed.
_TABLES = {"wpe", "embed_positions", "position_embeddings", "position_embedding", "positions_embed"}
_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
)
# Of configurations: what limits how many tokens before it a token sees. Too small a limit costs speed only.
_WINDOW = re.compile(
    r"window(?!.*(layers|pattern))|chunk_size(?!_feed)|^local_attention$|^block_size$|^index_topk$"
)


def context_length(name: str, wanted: int | None, body: nn.Module, text_config: Any) -> int | None:
    """The longest sequence: as configured, else by the model's own configuration; None without a limit.

    Args:
        name: the candidate's.
        wanted: its setting.

    Raises:
        CandidateError: the table of positions has fewer.
    """
    table = min(_table_lengths(body), default=None)
    if wanted is not None and table is not None and wanted > table:
        raise CandidateError(
            f"candidate {name!r}: context_length {wanted} is more than its table of positions has ({table})"
        )
    if wanted is not None:
        return wanted
    values = (getattr(text_config, key, None) for key in _CONTEXT_KEYS)
    configured = next((value for value in values if isinstance(value, int) and value > 0), None)
    return min((limit for limit in (configured, table) if limit is not None), default=None)


def _table_lengths(body: nn.Module) -> list[int]:
    """Positions that each table has; some families leave its first rows unused."""
    lengths = []
    for name, module in body.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _TABLES:
            padding = (
                module.padding_idx
            )  # RoBERTa counts positions from behind it, OPT and BART from `offset`
            unused = getattr(module, "offset", 0 if padding is None else padding + 1)
            lengths.append(module.num_embeddings - unused)
    for name, buffer in body.named_buffers():
        if buffer.dim() == 2 and name.rpartition(".")[2] in _TABLES:
            lengths.append(len(buffer))
    return lengths


def reach(text_config: Any) -> int | None:
    """Up to which length every token sees all before it; None without a limit, 0 where that is not known."""
    limits = _windows(text_config.to_dict())
    kinds = set(getattr(text_config, "layer_types", None) or ["full_attention"])
    if kinds - {"full_attention"} and not limits:
        return 0
    return min(limits, default=None)


def _windows(settings: dict[Any, Any]) -> list[int]:
    found = []
    for key, value in settings.items():
        if isinstance(value, dict):
            found += _windows(value)
        elif type(value) is int and value > 0 and _WINDOW.search(str(key)):  # no switches
            found.append(value)
    return found


def depends_on_the_batch(text_config: Any) -> bool:
    """Whether positions are encoded by the longest of a batch, as transformers does for these kinds."""
    found = str(getattr(text_config, "rope_parameters", None) or getattr(text_config, "rope_scaling", None))
    return any(kind in found for kind in ("'dynamic'", "'longrope'"))


def forget_longest(body: nn.Module, _: Any) -> None:
    """Let positions be encoded by the next sequence alone, not by the longest that was read before it."""
    for module in body.modules():
        for key in list(vars(module)):
            if key.endswith("max_seq_len_cached"):
                setattr(module, key, 0)
