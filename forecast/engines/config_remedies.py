"""What to do about a config.json that transformers cannot use: its errors say what failed in its own code."""

from collections.abc import Mapping
from typing import Any

import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

_IMPLEMENTATIONS = tuple(
    prefix + key for key in ("attn_implementation", "experts_implementation") for prefix in ("_", "")
)


def remedy_for(settings: Mapping[str, Any]) -> str:
    """The likeliest remedy, as part of a sentence.

    Args:
        settings: what config.json holds.
    """
    if found := [key for key in _IMPLEMENTATIONS if settings.get(key) is not None]:
        return f"remove {found[0]} from it: the implementation is chosen here, and checked"
    for key in ("rope_scaling", "rope_parameters"):
        stated = settings.get(key)
        kind = stated.get("rope_type", stated.get("type")) if isinstance(stated, dict) else stated
        known = ("default", *sorted(ROPE_INIT_FUNCTIONS))
        if kind is not None and kind not in known:
            return f"correct {key}: its type is {kind!r}, transformers knows {', '.join(known)}"
    theirs, ours = settings.get("transformers_version"), transformers.__version__
    written = f" (it was written by transformers {theirs}, this is {ours})" if theirs != ours else ""
    return f"correct it, or copy or download it again{written}"
