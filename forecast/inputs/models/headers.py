"""What the files of a model folder say about themselves, read within bounds; they may be a stranger's."""

import codecs
import contextlib
import math
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from forecast.errors import CandidateError, shortened
from forecast.inputs.literals import parse_json

# Counts from which transformers makes lists and modules, before any weight is looked at.
_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "num_labels")
_MOST = 100_000
_MAY_HAVE_HOLES = 1 << 30  # bytes; file systems that compress leave holes for zeros in small files
_MOST_JSON_BYTES = 64 << 20  # an index of 100,000 tensors has ten million


def safetensors_shapes(path: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, from its header.

    The library checks that header and content fit each other byte for byte.

    Args:
        name: the candidate's.

    Raises:
        CandidateError: the file is damaged, or shorter or longer than its header says.
    """
    try:
        with safe_open(path, framework="np") as file:
            return {tensor: tuple(file.get_slice(tensor).get_shape()) for tensor in file.offset_keys()}
    except SafetensorError as error:
        said = str(error).removeprefix("Error while deserializing header: ")
        raise CandidateError(
            f"candidate {name!r}: {path} is not a safetensors file or is truncated or damaged "
            f"({shortened(said, str)}); copy or download it again"
        ) from None


def safetensors_parameters(paths: tuple[Path, ...], name: str) -> int:
    """Elements of all tensors of a model.

    Raises:
        CandidateError: see `safetensors_shapes`; two files hold a tensor of one name; or most of a file was
            never written.
    """
    found: dict[str, Path] = {}
    elements = 0
    for path in paths:
        _check_written(path, name)
        for tensor, shape in safetensors_shapes(path, name).items():
            if tensor in found:
                raise CandidateError(
                    f"candidate {name!r}: {found[tensor]} and {path} both hold {shortened(tensor)}, and "
                    "which one counts is nowhere said; save the model anew"
                )
            found[tensor] = path
            elements += math.prod(shape)
    return elements


def _check_written(path: Path, name: str) -> None:
    """Refuse a file that is mostly a hole, as programs leave that make room before they download."""
    if (size := path.stat().st_size) < _MAY_HAVE_HOLES:
        return
    written = end = 0
    with path.open("rb") as file, contextlib.suppress(OSError):  # it ends in a hole
        while end < size:
            start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            written += end - start
    if written < size // 2:
        raise CandidateError(
            f"candidate {name!r}: of the {size} bytes of {path} only {written} were ever written; copy or "
            "download it again"
        )


def json_object(place: str, data: bytes, name: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        place: the file, as messages name it.

    Raises:
        CandidateError: it holds something else, or is longer or nested deeper than can be read.
    """
    try:
        if len(data) > _MOST_JSON_BYTES:
            raise ValueError(f"it has {len(data)} bytes, expected at most {_MOST_JSON_BYTES}")
        if data.startswith(codecs.BOM_UTF8):  # Python reads over it, transformers does not
            raise CandidateError(
                f"candidate {name!r}: {place} begins with a byte order mark; save it as UTF-8 without one"
            )
        found = parse_json(data.decode())
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, got {shortened(found)}")
    except (ValueError, RecursionError) as error:
        raise CandidateError(
            f"candidate {name!r}: {place} is damaged ({shortened(error, str)}); copy or download it again"
        ) from None
    return found


def check_config(place: str, config: dict[str, Any], name: str, allow_remote_code: bool) -> None:
    """Refuse a configuration that names other files than those that were located, or takes hours to build.

    Args:
        place: the file, as messages name it.
        name: the candidate's.

    Raises:
        CandidateError: names the key.
    """
    if "transformers_weights" in config:
        raise CandidateError(
            f"candidate {name!r}: transformers_weights in {place} names other weights than "
            "model.safetensors; rename that file to model.safetensors and remove the key"
        )
    if allow_remote_code and "--" in str(config.get("auto_map")):
        raise CandidateError(
            f"candidate {name!r}: auto_map in {place} names code of another repository, which is not among "
            "the files of this model; copy that code into the folder and name it there"
        )
    within = [config]
    while within:
        for key, value in within.pop().items():
            if isinstance(value, dict):
                within.append(value)
            elif key in _COUNTS and isinstance(value, int | float) and not value <= _MOST:
                raise CandidateError(
                    f"candidate {name!r}: {key} is {shortened(value)} in {place}, expected at most {_MOST}; "
                    "correct it, or download the file again"
                )
