"""The tensors of a GGUF file: read once, small ones by themselves, and none left unused."""

import functools
import math
import os
from collections import defaultdict
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

from forecast.engines.file_contents import some_of
from forecast.errors import CandidateError
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


def check_weights(header: GgufHeader, config: Any) -> Any:
    """The model on the meta device, once file and model have the same weights of the same shapes.

    transformers leaves out tensors that have no place, takes those of another size, and fills what is missing
    with random numbers.

    Raises:
        CandidateError: names the tensors.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    names = get_gguf_hf_weights_map(model, TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)())
    held = defaultdict(list)  # parameter -> the tensors it is made of
    unused = set()
    for tensor in header.tensors.keys() - ROPE_TENSORS:
        if parameter := names.get(tensor, names.get(tensor.removesuffix(".weight"))):
            held[parameter].append(tensor)
        else:
            unused.add(tensor)
    if unused:
        more = f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""
        raise header.refusal(min(unused), f"is a tensor{more} that the model has no place for")
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    expected = {name: one for name, one in model.named_parameters() if name not in tied}
    if missing := expected.keys() - held.keys():
        raise CandidateError(f"candidate {header.candidate!r}: missing weights: {some_of(missing)}")
    for name, parameter in expected.items():
        shapes = [header.tensors[tensor] for tensor in held[name]]
        # Gates and inputs of experts stand apart in the file, and a single row is a vector.
        is_whole = len(shapes) > 1 or parameter.squeeze().shape == torch.Size(n for n in shapes[0] if n != 1)
        if sum(map(math.prod, shapes)) != parameter.numel() or not is_whole:
            has = " and ".join(str(list(shape)) for shape in shapes)
            raise header.refusal(held[name][0], f"is {has}, not {list(parameter.shape)} as the keys say")
    return model
