"""Which files of a model folder are read, by their names alone: the same on a disk and in an object store."""

import fnmatch
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass

from forecast.config.candidates import CandidateConfig
from forecast.errors import CandidateError

# The names under which transformers looks for weights, in its order; other weight files of a folder
# (adapters, consolidated copies, optimizer states) are not what it loads.
_SAFETENSORS = "model.safetensors"
_PICKLED = "pytorch_model.bin"
TEXT_FILES = ("*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt")
# Files that match these patterns but cannot change a teacher-forced score.
_IRRELEVANT = {"generation_config.json", "trainer_state.json", "training_args.json", "all_results.json"}


@dataclass(frozen=True)
class Layout:
    """Names of the files that loading a model reads."""

    weights: tuple[str, ...]
    others: tuple[str, ...]
    pickled: bool


def layout_of(
    place: str, names: Collection[str], read: Callable[[str], bytes], settings: CandidateConfig
) -> Layout:
    """Choose among the files that lie directly in a model folder.

    Args:
        place: the folder, as messages name it.
        read: gives the content of a file; called for an index of weights.

    Raises:
        CandidateError: files missing, or of a kind that is not loaded by default; names the candidate.
    """
    name = settings.name
    if "config.json" not in names:
        raise CandidateError(
            f"candidate {name!r}: {place} has no config.json; expected a folder in Hugging Face layout"
        )
    safe = _weights(place, names, read, _SAFETENSORS, name)
    weights = safe or _weights(place, names, read, _PICKLED, name)
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
    others = {n for n in names if n not in _IRRELEVANT and any(fnmatch.fnmatchcase(n, p) for p in patterns)}
    return Layout(tuple(weights), tuple(sorted(others)), pickled=not safe)


def _weights(
    place: str, names: Collection[str], read: Callable[[str], bytes], file_name: str, name: str
) -> list[str]:
    """The one file of weights or the shards that its index names; empty where there is neither."""
    if file_name in names:
        return [file_name]
    index = f"{file_name}.index.json"
    if index not in names:
        return []
    try:
        shards = sorted({str(shard) for shard in json.loads(read(index))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CandidateError(
            f"candidate {name!r}: {place}/{index} is damaged: {error!r}; copy or download it again"
        ) from None
    if missing := [shard for shard in shards if shard not in names]:
        raise CandidateError(
            f"candidate {name!r}: missing weights: {place}/{index} names {', '.join(missing)}, not in the "
            "folder; copy or download them"
        )
    return shards
