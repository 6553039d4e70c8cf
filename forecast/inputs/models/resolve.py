"""Candidates: from a line of the configuration to files on this machine, checked and fingerprinted."""

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from forecast import storage
from forecast.config.candidates import CandidateConfig
from forecast.config.schema import Config
from forecast.config.sources import LARGEST
from forecast.errors import CandidateError, InputError, shortened
from forecast.inputs.files import local_path
from forecast.inputs.models.cache import fetched
from forecast.inputs.models.fingerprint import digest_of, files_digest, remembered
from forecast.inputs.models.gguf import read_header
from forecast.inputs.models.headers import check_config, json_object, safetensors_parameters
from forecast.inputs.models.layout import TEXT_FILES, layout_of

# The one template beside those that are read which transformers would take as the default.
_DEFAULT_TEMPLATE = Path("additional_chat_templates", "default.jinja")


@dataclass(frozen=True)
class ModelFiles:
    """Where the weights of a candidate lie on this machine."""

    folder: Path
    gguf: Path | None
    weights: tuple[Path, ...]
    others: tuple[Path, ...]
    parameters: int | None  # by the headers of the weight files; None for pickled ones

    def digest(self) -> str:
        """Content hash of everything that the loaded model depends on, wherever it lies."""
        if self.gguf is not None:
            return files_digest({"gguf": self.gguf})
        return files_digest({path.name: path for path in [*self.weights, *self.others]})


@dataclass(frozen=True)
class Candidate:
    """A candidate ready to be planned; `candidate_id` stands for everything that shapes its numbers."""

    name: str
    candidate_id: str
    settings: CandidateConfig
    engine: str
    dtype: str
    prompt_form: str
    files_digest: str | None  # None for made-up candidates
    parameters: int | None  # before layers are dropped

    @property
    def family(self) -> str | None:
        """Name of the model family, as configured."""
        return self.settings.family


def resolve_candidate(settings: CandidateConfig, config: Config) -> Candidate:
    """Find and fingerprint a candidate's files.

    Raises:
        CandidateError: files missing, truncated or of a kind that is not loaded by default; has the name.
    """
    made_up = settings.source.startswith("fake://")
    if made_up != (config.engine.kind == "fake"):
        raise CandidateError(
            f"candidate {settings.name!r}: fake:// sources and engine: {{kind: fake}} go together, "
            f"but the source is {settings.source!r} and the engine {config.engine.kind!r}"
        )
    if made_up:
        return candidate_of(settings, config, None, settings.parameters)
    files = locate_files(settings)
    return candidate_of(settings, config, files.digest(), files.parameters)


def candidate_of(
    settings: CandidateConfig, config: Config, digest: str | None, parameters: int | None
) -> Candidate:
    """A candidate whose files are known by their digest (None for a made-up one); looks at none of them.

    Args:
        parameters: counted in the files.

    Raises:
        CandidateError: more parameters than results can hold.
    """
    requested = settings.dtype or config.engine.dtype
    dtype = native_dtype(config.cluster.on_gpu) if requested == "auto" else requested
    form = settings.prompt_form or config.prompt_form
    files = settings.source if digest is None else digest
    quantize = settings.quantize.model_dump() if settings.quantize else None
    limits = (settings.vocab_size, settings.context_length)
    candidate_id = digest_of(files, quantize, settings.drop_layers, *limits, dtype, form)
    counted = settings.parameters or parameters
    if counted is not None and counted > LARGEST:
        raise CandidateError(
            f"candidate {settings.name!r}: {settings.source} promises {shortened(counted)} parameters, "
            f"more than results can hold ({LARGEST}); its header is damaged: copy or download it again"
        )
    return Candidate(settings.name, candidate_id, settings, config.engine.kind, dtype, form, digest, counted)


def locate_files(settings: CandidateConfig) -> ModelFiles:
    """The files of a candidate on this machine.

    A hub id is downloaded (or found in the local hub cache), files at `s3://...` are copied to a cache.

    Raises:
        CandidateError: see `resolve_candidate`.
        ForecastError: see `fetched`.
    """
    name = settings.name
    try:
        source = local_path(settings.source)
    except InputError as error:
        raise CandidateError(f"candidate {name!r}: {error}") from None
    path = fetched(settings) if storage.is_remote(source) else Path(source)
    if source.endswith(".gguf"):
        if not path.is_file():
            raise CandidateError(f"candidate {name!r}: no GGUF file at {path}")
        return ModelFiles(path.parent, path, (path,), (), gguf_parameters(path, name))
    if not path.is_dir():
        if path.is_absolute():
            raise CandidateError(f"candidate {name!r}: no model folder at {path}")
        path = _from_hub(settings)
    layout = layout_of(str(path), _sizes(path), lambda file: (path / file).read_bytes(), settings)
    for file in {"config.json", "tokenizer_config.json"} & set(layout.others):
        content = json_object(str(path / file), (path / file).read_bytes(), name)
        check_config(str(path / file), content, name, settings.allow_remote_code)
    if (path / _DEFAULT_TEMPLATE).exists():
        raise CandidateError(
            f"candidate {name!r}: {path / _DEFAULT_TEMPLATE} would replace the chat template; move it to "
            f"{path}/chat_template.jinja"
        )
    weights = tuple(path / file for file in layout.weights)
    parameters = None if layout.pickled else safetensors_parameters(weights, name)
    return ModelFiles(path, None, weights, tuple(path / file for file in layout.others), parameters)


def _sizes(folder: Path) -> dict[str, int | None]:
    """Bytes of the files in a folder, None for what is neither file nor folder."""
    found: dict[str, int | None] = {}
    for entry in os.scandir(folder):
        try:
            status = entry.stat()
        except OSError:  # a link to itself, to nothing, or to what may not be looked at
            found[entry.name] = None
            continue
        if not stat.S_ISDIR(status.st_mode):
            found[entry.name] = status.st_size if stat.S_ISREG(status.st_mode) else None
    return found


def _from_hub(settings: CandidateConfig) -> Path:
    import huggingface_hub

    repo, _, revision = settings.source.partition("@")
    patterns = [*TEXT_FILES, "model*.safetensors"]
    patterns += ["pytorch_model*.bin"] if settings.allow_pickle else []
    patterns += ["*.py"] if settings.allow_remote_code else []
    try:
        folder = huggingface_hub.snapshot_download(
            repo,
            revision=revision or settings.revision,
            allow_patterns=patterns,
            ignore_patterns=["*/*"],  # exports to other formats
        )
    except Exception as error:  # offline, not found, gated and malformed ids each have types of their own
        raise CandidateError(
            f"candidate {settings.name!r}: {settings.source!r} is not a folder on this machine "
            f"and could not be downloaded from the model hub: {error}"
        ) from error
    return Path(folder)


def gguf_parameters(path: Path, name: str) -> int:
    """Elements in a GGUF file, from its header.

    Raises:
        CandidateError: see `read_header`.
    """

    def elements(path: Path) -> int:
        return sum(math.prod(shape) for shape in read_header(path, name).tensors.values())

    # Reading the vocabulary in a header takes long beside all else that planning does. What a file name says
    # is no content, so it is part of what is remembered.
    return int(remembered(path, f"elements of {path.name}", elements))


def native_dtype(on_gpu: bool) -> str:
    """`bfloat16` where it is computed natively (GPUs; CPUs with AMX or AVX512-BF16), else `float32`."""
    if on_gpu:
        return "bfloat16"
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "float32"
    return "bfloat16" if flags & {"amx_bf16", "avx512_bf16"} else "float32"
