"""Which files of a model folder are read, by names and sizes: the same on a disk and in an object store."""

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from forecast.config.candidates import CandidateConfig
from forecast.errors import CandidateError, shortened
from forecast.inputs.models.headers import json_object

# The names under which transformers looks for weights, in its order; other weight files of a folder
# (adapters, consolidated copies, optimizer states) are not what it loads.
_SAFETENSORS = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_ADAPTER = "adapter_config.json"
_TOKENIZER_FILES = ("merges.txt", "vocab.txt", "dict.txt", "bpe.codes", "*.spm", "*.tokenizer")
TEXT_FILES = ("*.json", "*.jinja", "*.model", "*.tiktoken", *_TOKENIZER_FILES)
_MOST_TEXT_BYTES = 1 << 30  # vocabularies are tens of megabytes
# Files that match these patterns but cannot change a teacher-forced score.
_IRRELEVANT = {"generation_config.json", "trainer_state.json", "training_args.json", "all_results.json"}


@dataclass(frozen=True)
class Layout:
    """Names of the files that loading a model reads."""

    weights: tuple[str, ...]
    others: tuple[str, ...]
    pickled: bool


def layout_of(
    place: str,
    sizes: Mapping[str, int | None],
    read: Callable[[str], bytes],
    settings: CandidateConfig,
) -> Layout:
    """Choose among the files that lie directly in a model folder.

    Args:
        place: the folder, as messages name it.
        sizes: bytes of each file, by its name; None for a device, a pipe or a link that leads nowhere.
        read: gives the content of a file; called for an index of weights and the settings of an adapter.

    Raises:
        CandidateError: files missing, or of a kind that is not loaded by default; names the candidate.
    """
    name = settings.name
    if _ADAPTER in sizes:
        raise CandidateError(f"candidate {name!r}: {_adapter(place, sizes, read, name)}")
    if "config.json" not in sizes:
        raise CandidateError(
            f"candidate {name!r}: {place} has no config.json; expected a folder in Hugging Face layout"
        )
    safe = _weights(place, sizes, read, _SAFETENSORS, name)
    weights = safe or _weights(place, sizes, read, _PICKLED, name)
    if weights and not safe and not settings.allow_pickle:
        raise CandidateError(
            f"candidate {name!r}: missing weights: no {_SAFETENSORS} in {place}; {weights[0]} is pickled and "
            "can run code when loaded: convert it to safetensors, or set allow_pickle: true for a file that "
            "you trust"
        )
    if not weights:
        raise CandidateError(
            f"candidate {name!r}: missing weights: neither {_SAFETENSORS} nor its .index.json in {place}"
        )
    patterns = (*TEXT_FILES, "*.py") if settings.allow_remote_code else TEXT_FILES
    others = {n for n in sizes if n not in _IRRELEVANT and any(fnmatch.fnmatchcase(n, p) for p in patterns)}
    for file in (*weights, *sorted(others)):
        _check_size(place, file, sizes, name, limit=_MOST_TEXT_BYTES if file in others else None)
    return Layout(tuple(weights), tuple(sorted(others)), pickled=not safe)


def _check_size(
    place: str, file: str, sizes: Mapping[str, int | None], name: str, limit: int | None = None
) -> None:
    if (size := sizes[file]) is None:
        raise CandidateError(
            f"candidate {name!r}: {place}/{file} is no regular file, or a link that leads nowhere; copy or "
            "download it again"
        )
    if limit is not None and size > limit:
        raise CandidateError(
            f"candidate {name!r}: {place}/{file} has {size} bytes, expected at most {limit}; remove it, or "
            "copy or download it again"
        )


def _adapter(place: str, sizes: Mapping[str, int | None], read: Callable[[str], bytes], name: str) -> str:
    """What is said about a folder with an adapter."""
    _check_size(place, _ADAPTER, sizes, name, _MOST_TEXT_BYTES)
    base = json_object(f"{place}/{_ADAPTER}", read(_ADAPTER), name).get("base_model_name_or_path")
    merge = (
        "merge it with peft, PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained("
        "folder), save the tokenizer to that folder too, and name it as the source"
    )
    if "config.json" in sizes and any(file in sizes for file in (_SAFETENSORS, f"{_SAFETENSORS}.index.json")):
        return (
            f"{place} holds an adapter ({_ADAPTER}) beside a whole model, and which one is meant is nowhere "
            f"said: remove {_ADAPTER} to have the model without the adapter, or {merge}"
        )
    return f"{place} is an adapter of base {shortened(base)} and no whole model: {merge}"


def _weights(
    place: str, sizes: Mapping[str, int | None], read: Callable[[str], bytes], file_name: str, name: str
) -> list[str]:
    """The one file of weights or the shards that its index names; empty where there is neither."""
    if file_name in sizes:
        return [file_name]
    index = f"{file_name}.index.json"
    if index not in sizes:
        return []
    _check_size(place, index, sizes, name, _MOST_TEXT_BYTES)
    entries = json_object(f"{place}/{index}", read(index), name).get("weight_map")
    shards = entries.values() if isinstance(entries, dict) else [None]
    suffix = file_name[file_name.rindex(".") :]
    # transformers goes by the suffix when it decides how a file is loaded, and whether the index counts.
    if wrong := [shard for shard in shards if not (isinstance(shard, str) and shard.endswith(suffix))]:
        raise CandidateError(
            f"candidate {name!r}: {place}/{index} is damaged: its weight_map has {shortened(wrong[0])}, "
            f"expected names of {suffix} files; copy or download it again"
        )
    found = sorted(set(shards))
    if missing := [shard for shard in found if shard not in sizes]:
        raise CandidateError(
            f"candidate {name!r}: missing weights: {place}/{index} names {', '.join(missing[:5])}, not in "
            "the folder; copy or download them"
        )
    return found
