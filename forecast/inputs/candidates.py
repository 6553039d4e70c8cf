"""Candidates: from a line of the configuration to files on this machine, checked and fingerprinted."""

import json
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from forecast.config import CandidateConfig, Config
from forecast.errors import CandidateError, InputError
from forecast.inputs.fingerprint import digest_of, files_digest
from forecast.inputs.rows import local_path

# Files of a model folder that cannot change a teacher-forced reading.
_IRRELEVANT = {"generation_config.json", "trainer_state.json", "training_args.json", "all_results.json"}
_TEXT_FILES = ("*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt")
_PICKLED = ("*.bin", "*.pt", "*.pth")


@dataclass(frozen=True)
class ModelFiles:
    """Where the weights of a candidate lie on this machine."""

    folder: Path
    gguf: Path | None
    weights: tuple[Path, ...]
    others: tuple[Path, ...]

    def digest(self) -> str:
        """Content hash of everything that the loaded model depends on."""
        return files_digest([*self.weights, *self.others])


@dataclass(frozen=True)
class Candidate:
    """A candidate that is ready to be planned: `candidate_id` stands for everything that shapes its numbers."""

    name: str
    candidate_id: str
    settings: CandidateConfig
    engine: str
    dtype: str
    prompt_form: str
    files_digest: str | None
    parameters: int | None

    @property
    def family(self) -> str | None:
        """Name of the model family, as configured."""
        return self.settings.family


def resolve_candidate(settings: CandidateConfig, config: Config) -> Candidate:
    """Find and fingerprint a candidate's files.

    Raises:
        CandidateError: files missing, truncated or of a kind that is not loaded by default; names the candidate.
    """
    requested = settings.dtype or config.engine.dtype
    dtype = native_dtype(config.cluster.gpus_per_actor > 0) if requested == "auto" else requested
    form = settings.prompt_form or config.prompt_form
    if settings.source.startswith("fake://") or config.engine.kind == "fake":
        digest, parameters = None, settings.parameters
        identity: object = settings.source
    else:
        files = locate_files(settings)
        digest = identity = files.digest()
        parameters = settings.parameters or count_parameters(files, settings.name)
    candidate_id = digest_of(
        identity,
        settings.quantize.model_dump() if settings.quantize else None,
        settings.drop_layers,
        settings.vocab_size,
        settings.context_length,
        dtype,
        form,
    )
    return Candidate(settings.name, candidate_id, settings, config.engine.kind, dtype, form, digest, parameters)


def locate_files(settings: CandidateConfig) -> ModelFiles:
    """The files of a candidate on this machine; a hub id is downloaded (or found in the local hub cache).

    Raises:
        CandidateError: see `resolve_candidate`.
    """
    source, name = settings.source, settings.name
    if source.startswith("package://"):
        try:
            source = local_path(source)
        except InputError as error:
            raise CandidateError(f"candidate {name!r}: {error}") from None
    path = Path(source)
    if source.endswith(".gguf"):
        if not path.is_file():
            raise CandidateError(f"candidate {name!r}: no GGUF file at {path}")
        check_gguf(path, name)
        return ModelFiles(path.parent, path, (path,), ())
    if not path.is_dir():
        if path.is_absolute():
            raise CandidateError(f"candidate {name!r}: no model folder at {path}")
        path = _from_hub(settings)
    return _folder_files(path, settings)


def _folder_files(folder: Path, settings: CandidateConfig) -> ModelFiles:
    name = settings.name
    if not (folder / "config.json").is_file():
        raise CandidateError(f"candidate {name!r}: {folder} has no config.json; expected a folder in Hugging Face layout")
    weights = sorted(folder.glob("*.safetensors"))
    pickled = sorted(p for pattern in _PICKLED for p in folder.glob(pattern) if p.name != "training_args.bin")
    if not weights and pickled and settings.allow_pickle:
        weights = pickled
    if not weights:
        hint = (
            f"; {pickled[0].name} is pickled and can run code when loaded: convert it to safetensors, "
            "or set allow_pickle: true for a file that you trust"
            if pickled
            else ""
        )
        raise CandidateError(f"candidate {name!r}: missing weights: no *.safetensors in {folder}{hint}")
    for index in folder.glob("*.safetensors.index.json"):
        expected = set(json.loads(index.read_text())["weight_map"].values())
        if missing := sorted(expected - {w.name for w in weights}):
            raise CandidateError(f"candidate {name!r}: missing weights: {index} names {', '.join(missing)}, not in the folder")
    for path in weights:
        if path.suffix == ".safetensors":
            safetensors_parameters(path, name)
    patterns = (*_TEXT_FILES, "*.py") if settings.allow_remote_code else _TEXT_FILES
    others = {p for pattern in patterns for p in folder.glob(pattern) if p.name not in _IRRELEVANT}
    return ModelFiles(folder, None, tuple(weights), tuple(sorted(others)))


def _from_hub(settings: CandidateConfig) -> Path:
    from huggingface_hub import snapshot_download

    repo, _, revision = settings.source.partition("@")
    patterns = [*_TEXT_FILES, "*.safetensors"]
    patterns += list(_PICKLED) if settings.allow_pickle else []
    patterns += ["*.py"] if settings.allow_remote_code else []
    try:
        return Path(snapshot_download(repo, revision=revision or settings.revision, allow_patterns=patterns))
    except Exception as error:  # offline, not found, gated and malformed ids each have types of their own
        raise CandidateError(
            f"candidate {settings.name!r}: {settings.source!r} is neither a folder on this machine "
            f"nor could it be had from the model hub: {error}"
        ) from error


def count_parameters(files: ModelFiles, name: str) -> int | None:
    """Parameters by the headers of the weight files; None where they have no readable header."""
    if files.gguf is not None:
        return check_gguf(files.gguf, name)
    if any(path.suffix != ".safetensors" for path in files.weights):
        return None
    return sum(safetensors_parameters(path, name) for path in files.weights)


def safetensors_parameters(path: Path, name: str) -> int:
    """Elements in a safetensors file, from its header.

    Raises:
        CandidateError: the file is damaged or shorter than its header promises.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
        tensors = [entry for key, entry in header.items() if key != "__metadata__"]
        promised = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise CandidateError(f"candidate {name!r}: {path} is not a safetensors file or is damaged: {error}") from None
    if promised != size:
        raise CandidateError(
            f"candidate {name!r}: {path} is truncated or damaged: its header promises {promised} bytes, "
            f"it has {size}; copy or download it again"
        )
    return sum(math.prod(entry["shape"]) for entry in tensors)


def check_gguf(path: Path, name: str) -> int:
    """Elements in a GGUF file, from its header.

    Raises:
        CandidateError: the file is damaged or shorter than its header promises.
    """
    stat = path.stat()
    try:
        return _gguf_elements(str(path), stat.st_size, stat.st_mtime_ns)
    except Exception as error:  # the reader maps the file and fails in as many ways as bytes can be missing
        raise CandidateError(
            f"candidate {name!r}: {path} is not a GGUF file or is truncated ({error}); copy or download it again"
        ) from None


@lru_cache(maxsize=256)
def _gguf_elements(path: str, size: int, mtime: int) -> int:
    import gguf

    reader = gguf.GGUFReader(path)
    end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    if end > size:
        raise ValueError(f"tensors end at byte {end}, the file has {size}")
    if not reader.tensors:
        raise ValueError("it holds no tensors")
    return sum(int(t.n_elements) for t in reader.tensors)


def native_dtype(on_gpu: bool) -> str:
    """`bfloat16` where it is computed natively (any supported GPU; a CPU with AMX or AVX512-BF16), else `float32`."""
    if on_gpu:
        return "bfloat16"
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "float32"
    return "bfloat16" if flags & {"amx_bf16", "avx512_bf16"} else "float32"
