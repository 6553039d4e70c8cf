"""Bounds of the model that a configuration asks for: some take hours to build, some exceed all memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from forecast.errors import CandidateError

# By the tensors in the files: experts stand apart in some and together in others, and each parameter counts
# twice, when it is made and when it is filled.
_SPARE_PARAMETERS, _PARAMETERS_PER_TENSOR = 2_000, 20
_MOST_PARAMETERS = 200_000  # where the number of tensors is not known
_MOST_TABLE_BYTES = 16 << 30  # of positions and masks, which no file holds


@contextmanager
def limited_size(candidate: str, tensors: int) -> Iterator[None]:
    """Within the block no model grows far beyond what its files hold.

    Args:
        candidate: its name.
        tensors: number of tensors in the files, 0 where it is not known.

    Raises:
        CandidateError: it does.
    """
    limit = _SPARE_PARAMETERS + _PARAMETERS_PER_TENSOR * tensors if tensors else _MOST_PARAMETERS
    made = tables = 0

    def count_parameter(*_: object) -> None:
        nonlocal made
        made += 1
        if made > limit:
            raise CandidateError(
                f"candidate {candidate!r}: missing weights: config.json asks for more than {limit} of them, "
                f"the files hold {tensors or 'far fewer'}; correct config.json"
            )

    def count_buffer(module: object, name: str, buffer: torch.Tensor | None) -> None:
        nonlocal tables
        tables += 0 if buffer is None else buffer.numel() * buffer.element_size()
        if tables > _MOST_TABLE_BYTES:
            raise CandidateError(
                f"candidate {candidate!r}: config.json asks for tables of {tables / 1e9:.3g} GB beside the "
                "weights; correct its number of positions (max_position_embeddings, n_positions)"
            )

    hooks = (
        register_module_parameter_registration_hook(count_parameter),
        register_module_buffer_registration_hook(count_buffer),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left; on CPUs torch says so in words only."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = str(error)
    return "DefaultCPUAllocator" in words or "not enough memory" in words or "CUDA out of memory" in words
