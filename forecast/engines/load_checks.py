"""Whether a candidate can be loaded as it is set, found without reading its weights.

What makes a model is read in the helper process of `forecast.inputs.bounded`, as when it is loaded. What
cannot be told there is left to the loading itself.
"""

import copy
from typing import Any

from forecast.engines.bounded_encode import check_configuration, check_tokenizer, in_helper
from forecast.errors import CandidateError
from forecast.inputs.bounded import MEMORY
from forecast.inputs.models.resolve import Candidate

_SECONDS = 300.0
_known: tuple[tuple[object, ...], Any] | None = None  # in the helper process: the model without weights


def check_loadable(candidate: Candidate) -> None:
    """Check files, tokenizer and settings: tensors, architecture, drop_layers, quantize, vocabulary, context.

    Raises:
        CandidateError: it could not be loaded.
    """
    check_configuration(candidate)
    check_tokenizer(candidate)
    what = ("the model that its files ask for cannot be built", "correct or copy them again")
    in_helper(candidate, what, _SECONDS, MEMORY, _check)


def _check(candidate: Candidate) -> None:
    """In the helper process; variants of one model share it."""
    global _known
    from forecast.engines.hf_loading import load_tokenizer, planned_files, without_weights

    settings = candidate.settings
    key = (candidate.files_digest, candidate.dtype, settings.allow_pickle, settings.allow_remote_code)
    with planned_files(candidate) as files:
        if files.gguf is None and files.parameters is None:
            return  # pickled weights have no header that could be compared
        if _known is None or _known[0] != key:
            _known = None
            _known = key, without_weights(candidate, files)
        try:
            _check_settings(candidate, copy.deepcopy(_known[1]), load_tokenizer(candidate, files))
        except (CandidateError, MemoryError):
            raise
        except Exception:  # of code that has no business without weights
            return


def _check_settings(candidate: Candidate, model: Any, tokenizer: Any) -> None:
    from forecast.engines.checks import real_vocab_size
    from forecast.engines.lengths import context_length
    from forecast.engines.variants import body_and_head, check_roundable, drop_layers, named_candidate

    name, settings = candidate.name, candidate.settings
    with named_candidate(name):
        if settings.drop_layers:
            drop_layers(model, settings.drop_layers)
        if settings.quantize is not None:
            check_roundable(model)
        if candidate.engine == "torch":
            body, head = body_and_head(model)
    if candidate.engine == "torch":
        real_vocab_size(candidate, tokenizer, head.weight.shape[0])
        context_length(name, settings.context_length, body, model.config.get_text_config())
