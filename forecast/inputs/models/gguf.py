"""The header of a GGUF file: its metadata and its table of tensors, read within bounds.

Lengths in a header are numbers that anybody can write. Each is compared with what is left of the header
before it is used, so a damaged or lying file costs no more than its first 64 MiB. (The header with the
largest vocabulary in use, 262,144 entries, has some 15 MB.) Other readers trust the lengths: they see a file
only once this one has accepted it.
"""

import itertools
import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gguf

from forecast.errors import CandidateError, shortened

_HEADER_BYTES = 1 << 26
_ELEMENTS = 1 << 22  # of one array
_NAME_LENGTH = 256
_MOST = 1 << 31  # of any count
_DIMENSIONS = 4  # of a tensor, in ggml
_VERSIONS = (2, 3)
_STRUCTS = {code: struct.Struct(f"<{code}") for code in "BbHhIifQqd?"}
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_Value = TypeVar("_Value", bool, int, float, str, list[Any])
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class GgufHeader:
    """What a candidate's GGUF file says of itself."""

    candidate: str
    path: Path
    metadata: Mapping[str, Any]  # key -> bool, int, float, str or a list of those
    tensors: Mapping[str, tuple[int, ...]]  # name -> shape, the slowest dimension first

    @property
    def architecture(self) -> str:
        """Name of the architecture, by which the keys that shape the model begin."""
        return str(self.metadata["general.architecture"])

    def get(self, key: str, expected: type[_Value], default: _Value) -> _Value:
        """The value of a key, or the default where the file has none.

        Raises:
            CandidateError: it is of another type, or a number that is not finite; names the key.
        """
        value = self.metadata.get(key, default)
        if type(value) is not expected or (isinstance(value, float) and not math.isfinite(value)):
            is_there = key in self.metadata
            raise self.refusal(
                key, f"is no {expected.__name__} that could be used" if is_there else "is missing"
            )
        return value

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A number of the architecture; one written for each block counts where all blocks have the same.

        Raises:
            CandidateError: it is missing without a default, or no number that counts something.
        """
        full = f"{self.architecture}.{key}"
        if full not in self.metadata and default is not None:
            return default
        value = self.metadata.get(full)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if type(value) is not int or not least <= value < _MOST:
            raise self.refusal(full, "is missing" if value is None else "is no number that could be used")
        return value

    def refusal(self, key: str, why: str) -> CandidateError:
        """The error about something in this file that is not honoured.

        Args:
            key: of the metadata, or name of a tensor.
        """
        said = f"{key} = {shortened(self.metadata[key])}" if key in self.metadata else key
        return CandidateError(
            f"candidate {self.candidate!r}: {self.path.name}: {said} {why}; score the folder in Hugging Face "
            "layout that the file was made from"
        )


def read_header(path: Path, name: str) -> GgufHeader:
    """Read and check the header of a candidate's GGUF file.

    Raises:
        CandidateError: the file is damaged, truncated, one of several parts or no model; has the name.
    """
    try:
        metadata, tensors = _read(path)
    except (ValueError, KeyError, struct.error, OSError) as error:
        raise CandidateError(
            f"candidate {name!r}: {path} is not a GGUF file or is truncated or damaged ({error}); "
            "copy or download it again"
        ) from None
    if refusal := _of_parts(path, metadata) or _of_another_kind(metadata, tensors):
        raise CandidateError(f"candidate {name!r}: {path} {refusal}")
    return GgufHeader(name, path, metadata, tensors)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    size = path.stat().st_size
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), min(size, _HEADER_BYTES), access=mmap.ACCESS_READ) as data,
    ):
        cursor = _Cursor(data)
        if cursor.take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        if (version := cursor.number("I")) not in _VERSIONS:
            raise ValueError(
                "it is written for big-endian machines" if version & 0xFFFF == 0 else f"version {version}"
            )
        n_tensors, n_keys = cursor.number("Q"), cursor.number("Q")
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = cursor.name()
            if key in metadata:
                raise ValueError(f"it says {key} twice")
            metadata[key] = cursor.value(cursor.number("I"))
        return metadata, _tensors(cursor, n_tensors, metadata, size)


class _Cursor:
    """A place in the header that only moves forward."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.at = data, 0

    def _advance(self, n_bytes: int) -> int:
        begin = self.at
        if n_bytes > len(self._data) - begin:
            raise ValueError(f"its header promises {n_bytes} bytes at byte {begin}, where there are fewer")
        self.at += n_bytes
        return begin

    def take(self, n_bytes: int) -> bytes:
        begin = self._advance(n_bytes)
        return self._data[begin : self.at]

    def number(self, code: str) -> Any:
        form = _STRUCTS[code]
        return form.unpack_from(self._data, self._advance(form.size))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode()

    def name(self) -> str:
        """Text that messages may repeat."""
        if (name := self.text()).isprintable() and len(name) <= _NAME_LENGTH:
            return name
        raise ValueError(f"a name that ends at byte {self.at} is too long or holds control characters")

    def value(self, kind: int) -> Any:
        if kind in _FORMATS:
            return self.number(_FORMATS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"its metadata hold a value of the unknown type {kind}")
        element, count = self.number("I"), self.number("Q")
        if count > _ELEMENTS:
            raise ValueError(f"its metadata promise a list of {count} entries; at most {_ELEMENTS} are read")
        if element in _FORMATS:
            code = f"<{count}{_FORMATS[element]}"
            return list(struct.unpack_from(code, self._data, self._advance(struct.calcsize(code))))
        if element != _STRING:
            raise ValueError(f"its metadata hold a list of the unknown type {element}")
        return [self.text() for _ in range(count)]


def _of_parts(path: Path, metadata: Mapping[str, Any]) -> str | None:
    """Why a file is refused that holds a part of a model."""
    named = _PART.search(path.name)
    count = int(named[2]) if named else metadata.get("split.count", 1)
    if count in (0, 1):
        return None
    return (
        f"is one of {shortened(count)} parts of a model, which are not read; join them by "
        "`llama-gguf-split --merge FIRST-PART WHOLE.gguf` and name the whole file"
    )


def _of_another_kind(metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> str | None:
    """Why a file is refused that holds something else than a model."""
    kind = metadata.get("general.type", "model")
    if kind == "adapter":
        return "is an adapter (general.type); merge it into its base model and name the merged file"
    if kind != "model" or not isinstance(metadata.get("general.architecture"), str) or not tensors:
        said = f"general.type {shortened(kind)}, {len(tensors)} tensors"
        return f"holds no whole model ({said}); name the model's file"
    if metadata.get("split.tensors.count", len(tensors)) != len(tensors):
        return (
            f"holds {len(tensors)} tensors, and by its split.tensors.count another number "
            "belong to the model; copy or download it again"
        )
    return None


def _tensors(
    cursor: _Cursor, count: int, metadata: Mapping[str, Any], size: int
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    places: list[tuple[int, int]] = []  # offset and bytes of each tensor's data
    for _ in range(count):
        name = cursor.name()
        if name in shapes:
            raise ValueError(f"it holds the tensor {name} twice")
        if (n_dimensions := cursor.number("I")) > _DIMENSIONS:
            raise ValueError(f"its tensor {name} has {n_dimensions} dimensions")
        shape = tuple(cursor.number("Q") for _ in range(n_dimensions))[::-1]
        block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(cursor.number("I"))]
        if not shape or 0 in shape or shape[-1] % block:
            raise ValueError(f"its tensor {name} has the shape {list(shape)}, in blocks of {block}")
        shapes[name] = shape
        places.append((cursor.number("Q"), math.prod(shape) // block * block_bytes))
    alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"its general.alignment is {shortened(alignment)}, not a power of two")
    start = -(-cursor.at // alignment) * alignment
    if (end := start + max((o + n for o, n in places), default=0)) > size:
        raise ValueError(f"tensors end at byte {end}, the file has {size}")
    places.sort()
    if any(offset + n > after for (offset, n), (after, _) in itertools.pairwise(places)):
        raise ValueError("its tensors overlap")
    return shapes
