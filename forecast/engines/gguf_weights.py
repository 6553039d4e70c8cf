"""The tensors of a GGUF file: read once, small ones by themselves, and none left unused."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from forecast.inputs.models.gguf import GgufHeader

# Divisors of the rotary angles: they go into the configuration.
ROPE_TENSORS = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}


@contextmanager
def read_once() -> Iterator[None]:
    """Within the block a GGUF file is parsed once.

    transformers lays out the table of tensor names anew for each of a model's modules (2 s together for
    SmolLM2-135M), and the tensors that go into the configuration are read apart from the others.
    """
    original = gguf.GGUFReader, gguf.get_tensor_name_map
    read = functools.lru_cache(maxsize=1)(gguf.GGUFReader)
    gguf.GGUFReader = lambda path, *mode: read(os.fspath(path), *mode)
    gguf.get_tensor_name_map = functools.lru_cache(maxsize=1)(gguf.get_tensor_name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = original


def divisors(header: GgufHeader, name: str, count: int) -> list[float]:
    """The values of a tensor that divides rotary angles, one an angle.

    Raises:
        CandidateError: it is missing, or is not so many positive numbers.
    """
    if header.tensors.get(name) != (count,):
        raise header.refusal(name, f"does not hold one divisor for each of {count} angles")
    found = next(tensor for tensor in gguf.GGUFReader(header.path).tensors if tensor.name == name)
    values = gguf.dequantize(found.data, found.tensor_type).ravel()
    if not (np.isfinite(values) & (values > 0)).all():
        raise header.refusal(name, "holds values that are no divisors")
    return [float(value) for value in values]


def check_weights_used(header: GgufHeader, model: Any) -> None:
    """Check that each tensor has its place in the model, and is as large as the configuration says.

    transformers leaves out what has none without a word, and puts in what is of another size.

    Raises:
        CandidateError: names the tensor.
    """
    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)()
    names = get_gguf_hf_weights_map(model, processor)
    used = names.keys() | {f"{name}.weight" for name in names} | ROPE_TENSORS  # experts are named without it
    if unused := sorted(header.tensors.keys() - used):
        more = f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""
        raise header.refusal(unused[0], f"is a tensor{more} that the model has no place for")
    with torch.device("meta"):
        expected = dict(AutoModelForCausalLM.from_config(model.config).named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.shape != expected[name].shape:
            tensor = next((file_name for file_name, there in names.items() if there == name), name)
            raise header.refusal(
                tensor,
                f"makes {name} of {list(parameter.shape)}, not {list(expected[name].shape)} as the keys say",
            )
