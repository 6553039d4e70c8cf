"""From a candidate's files to a transformers model and tokenizer: no hub, no code of theirs, nothing missing.

A run often holds many variants of one base model (pruned, rounded), and reading a GGUF file takes seconds.
So the base model that was read last is kept as it was read, and each variant is made from a copy.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from forecast.engines import gguf_weights
from forecast.engines.config_remedies import remedy_for
from forecast.engines.file_contents import check_contents, some_of, tensors_of, unwrapped
from forecast.engines.gguf_config import configuration_of
from forecast.engines.gguf_tokenizer import tokenizer_of
from forecast.engines.size_limits import limited_size, out_of_memory
from forecast.errors import CandidateError, PassingError, described
from forecast.inputs.models.gguf import GgufHeader, read_header
from forecast.inputs.models.resolve import Candidate, ModelFiles, locate_files
from forecast.inputs.models.view import view_of

# Larger models are not kept: two copies of one would crowd out what else runs on the machine.
KEEP_BYTES = 2 << 30
# Reads no weights; shapes that do not fit are in the report, and not in a log that nobody sees.
_SHAPES_ALONE = {"device_map": "meta", "ignore_mismatched_sizes": True}
_kept: dict[tuple[object, ...], tuple[Any, Any]] = {}  # one base model and its tokenizer, as read


def load_candidate(candidate: Candidate) -> tuple[Any, Any]:
    """The model before its variant is made, in the candidate's dtype on the CPU, and its tokenizer.

    The model is the caller's own to change; the tokenizer may be shared with other variants of the same
    files.

    Raises:
        CandidateError: the files are not the ones that were planned, or cannot be loaded as they are.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    settings = candidate.settings
    with planned_files(candidate) as files:
        key = (candidate.files_digest, candidate.dtype, settings.allow_pickle, settings.allow_remote_code)
        if key not in _kept:
            forget_models()  # first, so that two base models never stand side by side
            tokenizer = load_tokenizer(candidate, files)
            model = _load_model(candidate, files)
            size = sum(p.numel() * p.element_size() for p in model.parameters())
            # Code from elsewhere need not survive being copied.
            if settings.allow_remote_code or size > KEEP_BYTES:
                return model, tokenizer
            _kept[key] = model, tokenizer
    model, tokenizer = _kept[key]
    return copy.deepcopy(model), tokenizer


@contextmanager
def planned_files(candidate: Candidate) -> Iterator[ModelFiles]:
    """The candidate's files in a folder that holds nothing else and is there within the block.

    Raises:
        CandidateError: they are not the ones that were planned.
    """
    try:
        files = locate_files(candidate.settings)
    except CandidateError as error:  # they were there when the run was planned
        raise PassingError(str(error)) from None
    if files.digest() != candidate.files_digest:
        raise PassingError(
            f"candidate {candidate.name!r}: its files changed since the run was planned; "
            "run the same command again"
        )
    with view_of(files) as alone:
        yield alone


def forget_models() -> None:
    """Give back the base model that is kept for further variants."""
    _kept.clear()


def load_tokenizer(candidate: Candidate, files: ModelFiles) -> Any:
    """The candidate's tokenizer.

    Raises:
        CandidateError: it cannot be loaded.
    """
    with _named(candidate, files, "tokenizer"):
        if files.gguf is not None:
            return tokenizer_of(read_header(files.gguf, candidate.name))
        tokenizer = AutoTokenizer.from_pretrained(
            files.folder,
            trust_remote_code=candidate.settings.allow_remote_code,
            local_files_only=True,
        )
    _refuse_random_tokens(candidate, tokenizer)
    return tokenizer


def _refuse_random_tokens(candidate: Candidate, tokenizer: Any) -> None:
    """Refuse what is meant for training: merges left out, or pieces drawn, at random."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    sampling = getattr(tokenizer, "sp_model_kwargs", None) or {}
    if getattr(getattr(backend, "model", None), "dropout", None):
        setting = "tokenizer.json: model.dropout"
    elif sampling.get("enable_sampling"):
        setting = "tokenizer_config.json: sp_model_kwargs.enable_sampling"
    else:
        return
    raise CandidateError(
        f"candidate {candidate.name!r}: its tokenizer cuts each text at random ({setting}); remove "
        "the setting"
    )


@contextmanager
def _named(candidate: Candidate, files: ModelFiles, what: str) -> Iterator[None]:
    """Errors that say whose tokenizer or weights cannot be loaded."""
    try:
        yield
    except CandidateError:
        raise
    except Exception as error:  # transformers raises what its many parsers raise
        said = described(error).replace(
            str(files.folder), candidate.settings.source
        )  # the view is of no interest
        # transformers' own OSErrors are about what the files hold; those of the system have a number.
        if out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None):
            raise PassingError(
                f"candidate {candidate.name!r}: its {what} cannot be loaded: {said}"
            ) from error
        if remedy := None if files.gguf is not None else _fault_of_config(candidate, files):
            what = "config.json"
        else:
            remedy = "repair its files, or copy or download them again"
        raise CandidateError(
            f"candidate {candidate.name!r}: its {what} cannot be loaded: {said}; {remedy}"
        ) from error


def _fault_of_config(candidate: Candidate, files: ModelFiles) -> str | None:
    """What to do about config.json, None where transformers can use it: then the fault is elsewhere."""
    try:
        most = len(tensors_of(files))
    except Exception:
        return None
    try:
        _build(candidate, files, most)
    except MemoryError:
        return None
    except CandidateError:
        raise
    except Exception:
        return remedy_for(json.loads((files.folder / "config.json").read_bytes()))
    return None


def _build(candidate: Candidate, files: ModelFiles, n_tensors: int) -> None:
    remote = candidate.settings.allow_remote_code
    config = AutoConfig.from_pretrained(files.folder, trust_remote_code=remote, local_files_only=True)
    with limited_size(candidate.name, n_tensors), torch.device("meta"):
        AutoModelForCausalLM.from_config(config, trust_remote_code=remote)


def build_without_weights(candidate: Candidate, files: ModelFiles) -> None:
    """Make the model that config.json asks for on the meta device; errors but for those below are ignored.

    Raises:
        CandidateError: see `limited_size`.
        MemoryError: it takes more than there is.
    """
    try:
        _build(candidate, files, len(tensors_of(files)))
    except (CandidateError, MemoryError):
        raise
    except Exception:
        return


def check_weights(candidate: Candidate, files: ModelFiles) -> int:
    """Number of parameters of a model whose files are complete, found without reading the weights.

    Raises:
        CandidateError: the files lack weights or do not fit the model.
    """
    return sum(p.numel() for p in without_weights(candidate, files).parameters())


def without_weights(candidate: Candidate, files: ModelFiles) -> Any:
    """The model that the files hold, on the meta device.

    Raises:
        CandidateError: the files lack weights or do not fit the model.
    """
    transformers.utils.logging.set_verbosity_error()
    if files.gguf is None:
        return _filled(candidate, files, **_SHAPES_ALONE)
    with gguf_weights.read_once(), _named(candidate, files, "weights"):
        return _checked_gguf(candidate, read_header(files.gguf, candidate.name))[1]


def _checked_gguf(candidate: Candidate, header: GgufHeader) -> tuple[Any, Any]:
    """The configuration that a GGUF file describes, and its model on the meta device."""
    config = configuration_of(header)
    with limited_size(candidate.name, len(header.tensors)):
        return config, gguf_weights.check_weights(header, config)


def _load_model(candidate: Candidate, files: ModelFiles) -> Any:
    if files.gguf is not None:
        return _load_gguf(candidate, files, files.gguf)
    # First without memory: config.json may ask for more than this machine has.
    check_weights(candidate, files)
    return _filled(candidate, files)


def _load_gguf(candidate: Candidate, files: ModelFiles, path: Path) -> Any:
    """The model by what a GGUF file says, all of it."""
    with gguf_weights.read_once(), _named(candidate, files, "weights"):
        config, _ = _checked_gguf(candidate, read_header(path, candidate.name))
        quantization = GgufConfig(dequantize=True)
        return _filled(candidate, files, config=config, gguf_file=path.name, quantization_config=quantization)


def _filled(candidate: Candidate, files: ModelFiles, **how: Any) -> Any:
    # What was located and fingerprinted, and nothing that transformers might find beside it.
    if files.gguf is None:
        how["use_safetensors"] = files.weights[0].suffix == ".safetensors"
    with _named(candidate, files, "weights"), limited_size(candidate.name, len(tensors_of(files))):
        model, report = AutoModelForCausalLM.from_pretrained(
            files.folder,
            dtype=getattr(torch, candidate.dtype),
            trust_remote_code=candidate.settings.allow_remote_code,
            local_files_only=True,
            output_loading_info=True,
            **how,
        )
    # transformers fills what the files lack with random numbers and only warns.
    if missing := report["missing_keys"]:
        remedy = unwrapped(missing, tensors_of(files)) or (
            "correct config.json where it asks for more than there is, or copy or download the files again"
        )
        raise CandidateError(f"candidate {candidate.name!r}: missing weights: {some_of(missing)}; {remedy}")
    if misfits := [f"{n} ({list(has)}, not {list(wants)})" for n, has, wants in report["mismatched_keys"]]:
        raise CandidateError(
            f"candidate {candidate.name!r}: weights of other shapes than config.json gives: "
            f"{some_of(misfits)}; correct config.json"
        )
    check_contents(candidate.name, model, files, report["unexpected_keys"])
    return model.eval()
