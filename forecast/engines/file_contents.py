"""Whether a model takes all that its files hold: what is left over makes it another, as what is missing does.

transformers leaves over what its configuration has no place for, and only warns; of some names it does not
even warn. vLLM says nothing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from safetensors import safe_open
from transformers.modeling_utils import load_state_dict

from forecast.errors import CandidateError
from forecast.inputs.models.resolve import ModelFiles

_WRAPPERS = re.compile(r"\b(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
Tensors = Mapping[str, Callable[[], torch.Tensor]]

# What may be left over, and why it changes no next-token probability. `_CHECKED` has more, which is looked
# at: the same names can hold what does change them.
_HARMLESS = {
    r"^(model\.)?mtp(_layers|_block)?\.": "heads that predict tokens further ahead, beside the model",
    r"^(model\.)?(visual|vision_\w+|audio_\w+|multi_modal_projector|embed_vision|embed_audio)\.": (
        "read images or sound; texts do not pass through them"
    ),
    r"^(model\.)?v_head\.": "the value head of a reinforcement learner, read beside the output head",
    r"^(model\.)?(encoder|decoder)\.version$": "the version of a file format",
}


def _is_mask(name: str, tensor: torch.Tensor, model: Any) -> bool:
    """A triangle of ones, the window that the model makes itself, or the number that stands for infinity."""
    if tensor.numel() == 1:
        return True
    mask = tensor.squeeze().bool()
    own = dict(model.named_buffers()).get(name)
    if own is not None and own.shape == tensor.shape:
        return own.is_meta or torch.equal(mask, own.squeeze().bool())
    return mask.dim() == 2 and torch.equal(mask, torch.ones_like(mask).tril())


def _is_count(name: str, tensor: torch.Tensor, model: Any) -> bool:
    """0, 1, 2, ..."""
    return torch.equal(tensor.flatten().long(), torch.arange(tensor.numel()))


def _is_as_configured(name: str, tensor: torch.Tensor, model: Any) -> bool:
    """Frequencies as the model makes them from its configuration, before or after linear scaling."""
    text_config = model.config.get_text_config()
    rope = getattr(text_config, "rope_parameters", None) or {}
    factor = rope.get("factor")
    own = list(_frequencies(model))
    if not own:  # made anew for each text, or not at all
        return True
    scales = (1.0, float(factor)) if isinstance(factor, int | float) else (1.0,)
    return any(
        one.shape == tensor.shape and torch.allclose(one * scale, tensor.float(), rtol=1e-2, atol=0)
        for one in own
        for scale in scales
    )


_CHECKED = {
    # Buffers of old checkpoints that every version of the code makes anew.
    r"\.(attn|attention|self_attn|self_attention)(\.attention)?\.(bias|masked_bias|causal_mask)$": _is_mask,
    r"(^|\.)position_ids$": _is_count,
    r"(^|\.)inv_freq$": _is_as_configured,
}


def check_contents(candidate: str, model: Any, files: ModelFiles, unexpected: set[str]) -> None:
    """Refuse files that hold more than the model takes, or the same thing twice.

    Args:
        candidate: its name.
        model: as loaded from the files, or on the meta device.
        unexpected: names of what transformers says that it left over.

    Raises:
        CandidateError: names the weights.
    """
    tensors = tensors_of(files)
    _refuse_twins(candidate, model, tensors)
    _refuse_whole_numbers(candidate, model, tensors)
    _refuse_gaps(candidate, tensors)
    taken = set(model.state_dict())
    further = _further_layers(taken, tensors)
    known = re.compile("|".join((*_HARMLESS, *_CHECKED)))
    unused = {name for name in unexpected if not known.search(name) and _layer(name) not in further}
    unused |= {name for name in tensors if further.get(_layer(name)) is False}
    for name, read in tensors.items():
        if name not in taken and f"{model.base_model_prefix}.{name}" not in taken:
            checks = [check for pattern, check in _CHECKED.items() if re.search(pattern, name)]
            unused |= {name for check in checks if not check(name, read(), model)}
    if unused:
        raise CandidateError(
            f"candidate {candidate!r}: unused weights: {some_of(unused)}: config.json has no place for them, "
            "so the numbers would be another model's; correct config.json (attention_bias, mlp_bias, "
            "num_hidden_layers, rope_theta and the like), or save the model without them"
        )


def some_of(names: Iterable[str]) -> str:
    """The first five names and how many more there are."""
    found = sorted(names)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def unwrapped(missing: Iterable[str], tensors: Tensors) -> str | None:
    """What to do where the files name missing weights as torch's wrappers of models do, else None."""
    for name in sorted(tensors):
        if _WRAPPERS.search(name) and _WRAPPERS.sub("", name) in missing:
            return (
                f"the files name them as a wrapper of the model does ({name}): save the model inside "
                "(model._orig_mod after torch.compile, model.module after DistributedDataParallel)"
            )
    return None


def tensors_of(files: ModelFiles) -> Tensors:
    """How each tensor of the files is read; nothing of a GGUF file."""
    found: dict[str, Callable[[], torch.Tensor]] = {}
    for path in files.weights if files.gguf is None else ():
        if path.suffix == ".safetensors":
            file: Any = safe_open(path, framework="pt")
            found |= {name: partial(file.get_tensor, name) for name in file.offset_keys()}
        else:
            state = load_state_dict(str(path))  # mapped, not read
            found |= {name: partial(state.get, name) for name in state}
    return found


def _layer(name: str) -> int | None:
    match = re.match(r"(?:model\.)?layers\.(\d+)\.", name)
    return int(match[1]) if match else None


def _further_layers(taken: set[str], tensors: Tensors) -> dict[int | None, bool]:
    """Layers of the files that the model has not; True for heads that predict tokens further ahead.

    transformers leaves over layers by their number for some kinds of model, whatever they are.
    """
    own = {_layer(name) for name in taken} - {None}
    inside = {_layer(name) for name in tensors} - {None} if own else set()
    heads = {_layer(name) for name in tensors if name.endswith(".eh_proj.weight")}
    return {layer: layer in heads for layer in inside - own}


def _refuse_twins(candidate: str, model: Any, tensors: Tensors) -> None:
    """Refuse two tensors for one weight, of which transformers takes one and vLLM perhaps the other."""
    prefix = f"{model.base_model_prefix}."
    if twins := [name for name in tensors if prefix + name in tensors]:
        raise CandidateError(
            f"candidate {candidate!r}: weights given twice, as {twins[0]} and {prefix}{twins[0]}; save "
            "the model with one of them"
        )
    for target, source in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        one, other = (
            tensors.get(name) or tensors.get(name.removeprefix(prefix)) for name in (target, source)
        )
        if one and other and not _equal(one(), other()):
            raise CandidateError(
                f"candidate {candidate!r}: config.json makes {target} the same as {source}, but the files "
                "hold two that differ; set tie_word_embeddings: false in config.json where they were trained "
                "apart, or save the model without the one that does not count"
            )


def _refuse_gaps(candidate: str, tensors: Tensors) -> None:
    """Refuse experts that are not numbered 0, 1, 2, ...: transformers puts them together in order."""
    groups: dict[str, set[int]] = {}
    for name in tensors:
        if match := re.search(r"\.experts\.(\d+)\.", name):
            groups.setdefault(name[: match.start(1)] + "*" + name[match.end(1) :], set()).add(int(match[1]))
    if gaps := [group for group, numbers in groups.items() if max(numbers) >= len(numbers)]:
        raise CandidateError(
            f"candidate {candidate!r}: missing weights: the experts of {some_of(gaps)} are not numbered "
            "from 0 on without gaps; copy or download the files again"
        )


def _refuse_whole_numbers(candidate: str, model: Any, tensors: Tensors) -> None:
    """Refuse quantized weights that would be taken as they are: of an unknown method, or of none."""
    quantization = getattr(model.config, "quantization_config", None)
    if quantization is not None:
        from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

        stated = quantization if isinstance(quantization, dict) else quantization.to_dict()
        # transformers goes on without one that it does not know.
        method = stated.get("quant_method")
        if str(method) in AUTO_QUANTIZATION_CONFIG_MAPPING or "load_in_8bit" in stated:
            return
        raise CandidateError(
            f"candidate {candidate!r}: transformers knows no quantization {method!r}, which config.json "
            "names, and would take the weights as they are; remove quantization_config where they are whole, "
            "else save the model in bfloat16"
        )
    floating = {name for name, weight in model.state_dict().items() if weight.is_floating_point()}
    if whole := [name for name in floating & set(tensors) if not tensors[name]().is_floating_point()]:
        raise CandidateError(
            f"candidate {candidate!r}: weights stored as whole numbers: {some_of(whole)}, and config.json "
            "has no quantization_config with which to scale them; restore it, or save the model in bfloat16"
        )


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one.dtype))


def _frequencies(model: Any) -> Iterator[torch.Tensor]:
    """The rotation frequencies of a model, made now where it is on the meta device."""
    for module in model.modules():
        if any(
            name.endswith("inv_freq") and one.is_meta for name, one in module.named_buffers(recurse=False)
        ):
            module.to_empty(device="cpu", recurse=False)
            model._init_weights(module)
        yield from (one for name, one in module.named_buffers(recurse=False) if name.endswith("inv_freq"))
