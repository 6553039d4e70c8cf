"""Encoding in the helper process of `forecast.inputs.bounded`.

Tokenizers and chat templates are programs of whoever made the model: they may loop, explode or crash.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from forecast.engines.encode import Encoded, Unscored, encode, text_behind
from forecast.errors import CandidateError, PassingError
from forecast.inputs.bounded import MEMORY, BoundedError, bounded
from forecast.inputs.models.resolve import Candidate
from forecast.inputs.trajectories import Trajectory

# Real tokenizers read megabytes a second, and their slowest conversions to the fast kind take two minutes.
_IMPORT_SECONDS = _LOAD_SECONDS = 300.0
_SECONDS, _SECONDS_A_TEXT, _SECONDS_A_BYTE = 30.0, 0.1, 1e-5
_MEMORY_A_BYTE = 1000  # a token's offsets alone are two objects

_T = TypeVar("_T")
_loaded: tuple[str | None, Any] = None, None  # in the helper process: files_digest and tokenizer
_built: str | None = None  # in the helper process: files_digest of the configuration that was tried last


def encode_bounded(
    candidate: Candidate, trajectories: Sequence[Trajectory], **options: Any
) -> list[Encoded | Unscored]:
    """As `encode` with the candidate's own tokenizer.

    Raises:
        CandidateError: see `encode`; or a limit of time or memory was exceeded, or the process died.
    """
    check_tokenizer(candidate)  # its time is no part of the texts'; it is loaded once
    n_bytes = sum(len(t.prompt.encode()) + len(t.solution.encode()) for t in trajectories)
    n_texts = "1 text" if len(trajectories) == 1 else f"{len(trajectories)} texts"
    seconds = _SECONDS + _SECONDS_A_TEXT * len(trajectories) + _SECONDS_A_BYTE * n_bytes
    what = (
        f"its tokenizer or chat template fails on {n_texts} of {n_bytes} bytes together",
        "repair them, or set prompt_form: raw if it is the template",
    )
    memory = MEMORY + _MEMORY_A_BYTE * n_bytes
    return in_helper(candidate, what, seconds, memory, _encode, trajectories, options)


def texts_behind(candidate: Candidate, pairs: Sequence[tuple[int, int]]) -> list[str]:
    """For each pair of token ids what the second adds to the text of the first; see `text_behind`.

    Raises:
        CandidateError: see `encode_bounded`.
    """
    check_tokenizer(candidate)
    what = "its tokenizer fails on the ids of the model's first choices", "repair it"
    return in_helper(candidate, what, _SECONDS, MEMORY, _texts_behind, pairs)


def check_tokenizer(candidate: Candidate) -> None:
    """Load the candidate's tokenizer where it can do no harm, before anybody else does.

    Raises:
        CandidateError: it cannot be loaded, within its limits.
    """
    warm_up()
    what = ("its tokenizer cannot be loaded", "repair it, or copy or download it again")
    in_helper(candidate, what, _LOAD_SECONDS, MEMORY, _load)


def check_configuration(candidate: Candidate) -> None:
    """Build the model that config.json asks for, without weights, where it can do no harm.

    Raises:
        CandidateError: it takes too much time or memory, or more weights than the files can hold. Other
            errors are left to the loading itself.
    """
    if candidate.settings.source.endswith(".gguf"):
        return
    warm_up()
    what = ("the model that config.json asks for cannot be built", "correct config.json")
    in_helper(candidate, what, _LOAD_SECONDS, MEMORY, _build)


def warm_up() -> None:
    """Start the helper process and let it import what takes seconds; does nothing where that is done."""
    with contextlib.suppress(BoundedError):  # whoever needs it will say so
        bounded(_ready, seconds=_IMPORT_SECONDS)


def in_helper(
    candidate: Candidate,
    what: tuple[str, str],
    seconds: float,
    memory: int,
    function: Callable[..., _T],
    *arguments: Any,
) -> _T:
    """The value of `function(candidate, *arguments)`, computed in the helper process.

    Args:
        what: what cannot be done where it exceeds a limit, and what to do then.

    Raises:
        CandidateError: names the candidate.
    """
    try:
        return bounded(function, candidate, *arguments, seconds=seconds, memory=memory)
    except BoundedError as error:
        fault, remedy = what
        kind = CandidateError if error.is_its_own else PassingError
        raise kind(f"candidate {candidate.name!r}: {fault}: {error}; {remedy}") from None


def _ready() -> None:
    from forecast.engines import hf_loading  # noqa: F401  # imports transformers


def _build(candidate: Candidate) -> None:
    """In the helper process; variants of one model share its configuration."""
    global _built
    from forecast.engines.hf_loading import build_without_weights, planned_files

    if _built != candidate.files_digest:
        with planned_files(candidate) as files:
            build_without_weights(candidate, files)
        _built = candidate.files_digest


def _load(candidate: Candidate) -> None:
    """In the helper process; variants of one model share its tokenizer."""
    global _loaded
    from forecast.engines.hf_loading import load_tokenizer, planned_files

    if _loaded[0] != candidate.files_digest:
        _loaded = None, None
        with planned_files(candidate) as files:
            _loaded = candidate.files_digest, load_tokenizer(candidate, files)


def _texts_behind(candidate: Candidate, pairs: Sequence[tuple[int, int]]) -> list[str]:
    _load(candidate)
    return [text_behind(_loaded[1], *pair) for pair in pairs]


def _encode(
    candidate: Candidate, trajectories: Sequence[Trajectory], options: dict[str, Any]
) -> list[Encoded | Unscored]:
    _load(candidate)
    return encode(trajectories, _loaded[1], candidate=candidate.name, **options)
