"""GGUF headers: what they say is read, and no length in them costs more than the bytes that are there."""

import struct
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from forecast.errors import CandidateError
from forecast.inputs.models.gguf import read_header

U8, U32, STRING, ARRAY = 0, 4, 8, 9


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


ARCHITECTURE = pair("general.architecture", STRING, text("llama"))
ALIGNMENT = text("general.alignment") + struct.pack("<I", U32)


def tensor(name: str = "a.weight", shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def file(
    pairs: bytes = ARCHITECTURE,
    tensors: bytes | None = None,
    counts: tuple[int, int] = (1, 1),
    version: int = 3,
    order: str = "<",
) -> bytes:
    head = b"GGUF" + struct.pack(f"{order}IQQ", version, *counts)
    body = head + pairs + (tensor() if tensors is None else tensors)
    return body + b"\0" * (-len(body) % 32 + 32)


def complaint(content: bytes, tmp_path: Path, name: str = "m.gguf") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    begin = time.monotonic()
    with pytest.raises(CandidateError) as caught:
        read_header(path, "it")
    assert time.monotonic() - begin < 2
    message = str(caught.value)
    assert message.startswith(f"candidate 'it': {path} ") and len(message) < 500 + len(str(path))
    return message


def test_metadata_and_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_context_length(64)
    writer.add_rope_freq_base(1e4)
    writer.add_add_bos_token(True)
    writer.add_token_list(["a", "ä"])
    writer.add_token_types([1, 3])
    writer.add_tensor("token_embd.weight", np.zeros((2, 4), np.float32))
    blocks = gguf.quantize(np.ones((3, 32), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("q", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    header = read_header(tmp_path / "m.gguf", "it")
    assert header.architecture == "llama"
    assert header.metadata == {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "llama.rope.freq_base": 1e4,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.tokens": ["a", "ä"],
        "tokenizer.ggml.token_type": [1, 3],
    }
    assert header.tensors == {"token_embd.weight": (2, 4), "q": (3, 32)}


LARGE = 2**62
LYING = {
    "array of bytes": (pair("x", ARRAY, struct.pack("<IQ", U8, LARGE)), "promise a list"),
    "array of bytes that fits no file": (pair("x", ARRAY, struct.pack("<IQ", U8, 2**22)), "promises 4194304"),
    "array of strings": (pair("x", ARRAY, struct.pack("<IQ", STRING, 2**22)), "promises"),
    "array of arrays": (pair("x", ARRAY, struct.pack("<IQ", ARRAY, LARGE)), "promise a list"),
    "array in an array": (pair("x", ARRAY, struct.pack("<IQ", ARRAY, 1) + b"\0" * 99), "unknown type 9"),
    "string": (pair("x", STRING, struct.pack("<Q", LARGE)), "promises"),
    "string beyond 63 bits": (pair("x", STRING, struct.pack("<Q", 2**64 - 1)), "promises"),
    "name of a key": (struct.pack("<Q", LARGE), "promises"),
    "escape sequence in a name": (pair("\x1b[31m", U8, b"1"), "control characters"),
    "long name": (pair("x" * 300, U8, b"1") * 2, "too long"),
    "unknown type": (pair("x", 77, b""), "unknown type 77"),
    "key twice": (ARCHITECTURE * 2, "general.architecture twice"),
    "not UTF-8": (struct.pack("<Q", 1) + b"\xff", "utf-8"),
    "alignment of zero": (
        ARCHITECTURE + pair("general.alignment", U32, struct.pack("<I", 0)),
        "power of two",
    ),
    "alignment of three": (
        ARCHITECTURE + pair("general.alignment", U32, struct.pack("<I", 3)),
        "power of two",
    ),
}


@pytest.mark.parametrize("kind", LYING)
def test_a_lying_value_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    pairs, part = LYING[kind]
    assert part in complaint(file(pairs, counts=(1, 2 if pairs.startswith(ARCHITECTURE) else 1)), tmp_path)


@pytest.mark.parametrize(
    ("tensors", "count", "part"),
    [
        (b"", 2**63, "shape []"),
        (tensor(shape=(LARGE, LARGE)), 1, "the file has"),
        (tensor(offset=2**63), 1, "the file has"),
        (text("a") + struct.pack("<I", 2**31), 1, "dimensions"),
        (tensor(kind=999), 1, "999"),
        (tensor(shape=()), 1, "shape []"),
        (tensor(shape=(0,)), 1, "shape [0]"),
        (tensor(shape=(33,), kind=8), 1, "blocks of 32"),
        (tensor() * 2, 2, "a.weight twice"),
        (tensor() + tensor("b", offset=8), 2, "overlap"),
    ],
)
def test_a_lying_table_of_tensors_is_refused_at_once(
    tensors: bytes, count: int, part: str, tmp_path: Path
) -> None:
    assert part in complaint(file(tensors=tensors, counts=(count, 1)), tmp_path)


def test_a_count_of_keys_that_the_file_cannot_hold_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 2**40))
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)  # zeros are keys of no name: the second is refused as the first one again
    with pytest.raises(CandidateError, match="twice"):
        read_header(path, "it")


@pytest.mark.parametrize(("version", "order"), [(1, "<"), (4, "<"), (3, ">"), (0, "<")])
def test_other_versions_and_byte_orders_are_named(version: int, order: str, tmp_path: Path) -> None:
    message = complaint(file(version=version, order=order), tmp_path)
    assert "big-endian" in message or f"version {version}" in message


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = file()
    path = tmp_path / "m.gguf"
    path.write_bytes(whole)
    assert read_header(path, "it").tensors == {"a.weight": (4,)}
    for length in range(len(whole) - 16):  # the last 16 bytes are padding
        complaint(whole[:length], tmp_path)


def test_bytes_changed_at_random_are_read_or_refused(tmp_path: Path) -> None:
    whole = np.frombuffer(file(), dtype=np.uint8)
    generator = np.random.default_rng(0)
    path = tmp_path / "m.gguf"
    refused = 0
    for _ in range(300):
        changed = whole.copy()
        changed[generator.integers(0, len(whole), 3)] = generator.integers(0, 256, 3)
        path.write_bytes(changed.tobytes())
        try:
            read_header(path, "it")
        except CandidateError:
            refused += 1
    assert 0 < refused < 300


def number(key: str, value: int) -> bytes:
    return pair(key, U32, struct.pack("<I", value))


@pytest.mark.parametrize(
    ("pairs", "n_pairs", "name"),
    [
        (ARCHITECTURE + number("split.count", 3), 2, "m.gguf"),
        (number("split.no", 1) + number("split.count", 3), 2, "m.gguf"),
        (ARCHITECTURE, 1, "m-00002-of-00003.gguf"),
    ],
)
def test_a_part_of_a_model_is_named_as_one(pairs: bytes, n_pairs: int, name: str, tmp_path: Path) -> None:
    message = complaint(file(pairs, counts=(1, n_pairs)), tmp_path, name)
    assert "is one of 3 parts of a model" in message and "llama-gguf-split --merge" in message


@pytest.mark.parametrize(
    ("pairs", "n_pairs", "n_tensors", "part"),
    [
        (ARCHITECTURE + pair("general.type", STRING, text("adapter")), 2, 1, "is an adapter"),
        (ARCHITECTURE + pair("general.type", STRING, text("mmproj")), 2, 1, "'mmproj'"),
        (number("general.architecture", 1), 1, 1, "holds no whole model"),
        (number("x", 1), 1, 1, "holds no whole model"),
        (ARCHITECTURE, 1, 0, "0 tensors"),
        (ARCHITECTURE + number("split.tensors.count", 9), 2, 1, "holds 1 tensors"),
    ],
)
def test_what_is_no_whole_model_is_named(
    pairs: bytes, n_pairs: int, n_tensors: int, part: str, tmp_path: Path
) -> None:
    tensors: Any = None if n_tensors else b""
    assert part in complaint(file(pairs, tensors, (n_tensors, n_pairs)), tmp_path)


def test_a_single_part_is_a_whole_model(tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-00001.gguf"
    path.write_bytes(file(ARCHITECTURE + number("split.count", 1), counts=(1, 2)))
    assert read_header(path, "it").tensors
