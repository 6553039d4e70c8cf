"""The engine on tiny random models of many families, against the models themselves."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import (
    TRAJECTORIES,
    VOCABULARY,
    change_config,
    change_weights,
    encoded,
    llama,
    load,
    resolve,
    save_model,
    save_tokenizer,
    shape,
    without,
)

from forecast.config.schema import EngineConfig
from forecast.engines import SequenceStats, load_engine, plain_reading, torch_engine
from forecast.engines.encode import Encoded
from forecast.errors import CandidateError
from forecast.inputs.trajectories import Trajectory
from forecast.tokenstats.reference import reference_stats

# Two fp32 computations of one logit differ by less than this; values in nats too.
CLOSE = 1e-4


GPT2 = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, vocab_size=VOCABULARY)
MODELS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "llama, tied": lambda: llama(tie_word_embeddings=True),
    "llama, padded vocabulary": lambda: llama(vocab_size=VOCABULARY + 52),
    "gpt2 (Conv1D, tied, learned positions)": lambda: GPT2,
    "gemma2 (softcap, sliding window)": lambda: transformers.Gemma2Config(
        **shape(head_dim=8, sliding_window=16, final_logit_softcapping=3.0)
    ),
    "cohere (logit_scale)": lambda: transformers.CohereConfig(**shape(logit_scale=0.25)),
    "granite (logits_scaling)": lambda: transformers.GraniteConfig(**shape(logits_scaling=3.0)),
    "falcon-h1 (lm_head_multiplier, state space)": lambda: transformers.FalconH1Config(
        **shape(lm_head_multiplier=0.5, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8)
    ),
    "qwen3": lambda: transformers.Qwen3Config(**shape(head_dim=8)),
    "phi (bias on the head)": lambda: transformers.PhiConfig(**shape()),
    "opt (projected head, offset positions)": lambda: transformers.OPTConfig(
        **without(shape(ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False), "pad_token_id")
    ),
    "bloom (alibi)": lambda: transformers.BloomConfig(
        hidden_size=32, n_layer=2, n_head=4, vocab_size=VOCABULARY
    ),
    "mixtral (experts)": lambda: transformers.MixtralConfig(**shape(num_local_experts=4)),
    "mamba (state space)": lambda: transformers.MambaConfig(
        hidden_size=32, num_hidden_layers=2, vocab_size=VOCABULARY
    ),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def model_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_model(folder, request.param())
    return folder


@torch.inference_mode()
def own_logits(model: Any, one: Encoded, vocab_size: int = VOCABULARY) -> torch.Tensor:
    """Logits [S, V] in fp64 where the whole model, given this sequence alone, predicts the scored tokens."""
    logits = model.eval()(input_ids=torch.from_numpy(one.input_ids)[None], use_cache=False).logits[0]
    return logits[one.first_scored - 1 : -1, :vocab_size].double()


def assert_matches(stats: SequenceStats, logits: torch.Tensor, one: Encoded) -> None:
    """Values agree to 1e-4 nats; rank and ties exactly, but for entries within 1e-4 of the target's logit.

    Rounding may put those on either side, so the rank lies between the counts without and with them.
    """
    targets = torch.from_numpy(one.input_ids[one.first_scored :])
    plain = reference_stats(logits, targets)
    for name in ("logprob", "entropy", "top1_logprob"):
        np.testing.assert_allclose(getattr(stats, name), getattr(plain, name).numpy(), rtol=0, atol=CLOSE)
    own = logits.gather(1, targets[:, None])
    least = (1 + (logits > own + CLOSE).sum(1)).numpy()
    most = (logits >= own - CLOSE).sum(1).numpy()
    assert (least <= stats.rank).all() and (stats.rank + stats.ties <= most).all()
    sharp = least == most
    assert sharp.mean() > 0.9
    np.testing.assert_array_equal(stats.rank[sharp], plain.rank.numpy()[sharp])
    first = logits.gather(1, torch.from_numpy(stats.top1_id)[:, None].long())
    assert (first[:, 0] >= logits.amax(1) - CLOSE).all()
    assert (stats.top1_id == plain.top1_id.numpy()).mean() > 0.9


def test_equals_the_model_itself(model_folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=torch.float32, attn_implementation="eager"
    )
    engine = load(model_folder, batch_tokens=10_000)
    assert engine.facts.vocab_size == VOCABULARY
    assert engine.facts.parameters == sum(p.numel() for p in model.parameters())
    sequences = encoded(engine)
    stats = engine.score(sequences)
    assert len(stats) == len(sequences) == len(TRAJECTORIES)
    for one, one_stats in zip(sequences, stats, strict=True):
        assert one_stats.rank.dtype == one_stats.ties.dtype == np.int32
        assert (
            one_stats.logprob.dtype == one_stats.entropy.dtype == one_stats.top1_logprob.dtype == np.float32
        )
        assert_matches(one_stats, own_logits(model, one), one)


def test_batches_and_order_change_nothing(model_folder: Path) -> None:
    whole = load(model_folder, batch_tokens=10_000)
    sequences = encoded(whole)
    expected = whole.score(sequences)
    for batch_tokens, order in ((1, [0, 1, 2, 3, 4, 5]), (200, [3, 5, 0, 1, 4, 2]), (10_000, [2, 4])):
        found = load(model_folder, batch_tokens=batch_tokens).score([sequences[i] for i in order])
        for i, one in zip(order, found, strict=True):
            np.testing.assert_allclose(one.logprob, expected[i].logprob, rtol=0, atol=CLOSE)
            np.testing.assert_allclose(one.entropy, expected[i].entropy, rtol=0, atol=CLOSE)


def test_padding_brings_no_foreign_token(folder: Path) -> None:
    sequences = encoded(load(folder))
    assert not any(0 in one.input_ids for one in sequences)
    change_weights(folder, lambda weights: weights["model.embed_tokens.weight"][0].fill_(torch.nan))
    assert len(load(folder, batch_tokens=10_000).score(sequences)) == len(sequences)


SHARING = {"gemma2 (softcap, sliding window)": 16}  # the longest sequence that is shared; else any
NOT_SHARING = {"falcon-h1 (lm_head_multiplier, state space)", "bloom (alibi)", "mamba (state space)"}


@pytest.mark.parametrize("kind", MODELS)
def test_what_texts_begin_with_is_computed_once(kind: str, tmp_path: Path) -> None:
    save_model(tmp_path, MODELS[kind]())
    whole, apart = load(tmp_path), load(tmp_path, share_prefixes=False)
    prompt = "Janet has 16 eggs. How many are left?"
    experts = [
        Trajectory("sums", "q", f"expert {i}", prompt, solution)
        for i, solution in enumerate((" 13 eggs", " 3 - 16", " It takes 2", " It has 2"))
    ]
    if kind in SHARING:
        experts = [replace(one, prompt="eggs:", solution=one.solution[:3]) for one in experts]
    sequences = encoded(whole, experts)
    assert max(len(one.input_ids) for one in sequences) <= SHARING.get(kind, 256)
    read = [0, 0]
    found = []
    for i, engine in enumerate((whole, apart)):

        def count(_: Any, args: Any, kwargs: dict[str, torch.Tensor], i: int = i) -> None:
            read[i] += kwargs["input_ids"].numel()

        handle = engine._body.register_forward_pre_hook(count, with_kwargs=True)
        found.append(engine.score(sequences))
        handle.remove()
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.logprob, other.logprob, rtol=0, atol=CLOSE)
        np.testing.assert_allclose(one.entropy, other.entropy, rtol=0, atol=CLOSE)
    if kind in NOT_SHARING:
        assert read[0] == read[1]
    else:
        assert read[0] < 0.7 * read[1]


def test_what_a_window_hides_is_not_shared(tmp_path: Path) -> None:
    save_model(tmp_path, MODELS["gemma2 (softcap, sliding window)"]())
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    )
    engine = load(tmp_path)
    prompt = TRAJECTORIES[0].prompt
    sequences = encoded(
        engine,
        [
            Trajectory("sums", "q", str(i), prompt, f" It takes {i} - 1 eggs of blue fiber, so 13 are left")
            for i in range(3)
        ],
    )
    assert min(len(one.input_ids) for one in sequences) > 16
    for one, stats in zip(sequences, engine.score(sequences), strict=True):
        assert_matches(stats, own_logits(model, one), one)


@pytest.mark.parametrize("compared", [plain_reading._SCORE_BYTES, 12 * 2 * 20**2])  # all, 20 tokens
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_batch_are_read_one_by_one(
    kind: str, compared: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_reading, "_SCORE_BYTES", compared)
    factors = {"factor": 2.0} if kind == "dynamic" else {"short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
    rope = {"rope_type": kind, "rope_theta": 10_000.0, "original_max_position_embeddings": 24, **factors}
    save_model(tmp_path, llama(rope_parameters=rope, max_position_embeddings=24))
    engine = load(tmp_path, batch_tokens=10_000, context_length=256)
    sequences = encoded(engine)
    lengths = [len(one.input_ids) for one in sequences]
    assert min(lengths) < 24 < max(lengths)
    for one, stats in zip(sequences, engine.score(sequences), strict=True):
        # Such models keep the longest length that they have seen, so each sequence gets a model of its own.
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path, dtype=torch.float32, attn_implementation="eager"
        )
        with torch.inference_mode():
            logits = model.eval()(input_ids=torch.from_numpy(one.input_ids)[None]).logits[
                0
            ]  # all of it counts
        assert_matches(stats, logits[one.first_scored - 1 : -1].double(), one)


def test_nothing_to_score(folder: Path) -> None:
    assert load(folder).score([]) == []


def test_tokens_are_conditioned_on_a_leading_bos(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", llama(), bos=True)
    engine = load(tmp_path / "model")
    sequences = encoded(engine)
    assert all(one.input_ids[0] == 0 for one in sequences)
    for one, stats in zip(sequences, engine.score(sequences), strict=True):
        assert_matches(stats, own_logits(model, one), one)


def test_the_head_runs_at_scored_positions_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(folder)
    sequences = encoded(engine)
    scored = sum(len(one.n_bytes) for one in sequences)
    assert scored < sum(len(one.input_ids) for one in sequences)
    engine.score(sequences)  # the longest is compared with a plain reading the first time
    rows = []
    whole = torch_engine.token_stats

    def counted(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(hidden))
        return whole(hidden, *args, **kwargs)

    monkeypatch.setattr(torch_engine, "token_stats", counted)
    engine.score(sequences)
    assert sum(rows) == scored


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_logits_are_the_models_own_and_tie(folder: Path, dtype: str) -> None:
    engine = load(folder, dtype=dtype, batch_tokens=1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    sequences = encoded(engine)
    stats = engine.score(sequences)
    for one, one_stats in zip(sequences, stats, strict=True):
        # The head's product over fewer rows may round otherwise in the last bit.
        logits = own_logits(model, one)
        plain = reference_stats(logits, torch.from_numpy(one.input_ids[one.first_scored :]))
        bit = logits.abs().max().item() * torch.finfo(getattr(torch, dtype)).eps
        np.testing.assert_allclose(one_stats.logprob, plain.logprob.numpy(), rtol=0, atol=2 * bit)
        np.testing.assert_allclose(one_stats.entropy, plain.entropy.numpy(), rtol=0, atol=2 * bit)
    if dtype == "bfloat16":
        assert sum(int(one.ties.sum()) for one in stats) > 0


def test_masked_entries_contribute_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = save_model(folder, MODELS["phi (bias on the head)"]())
    used = {int(token) for one in encoded(load(folder)) for token in one.input_ids}
    unused = sorted(set(range(VOCABULARY)) - used)
    change_weights(
        folder, lambda weights: weights["lm_head.bias"].index_fill_(0, torch.tensor(unused), -torch.inf)
    )
    model.lm_head.bias.data[unused] = -torch.inf
    engine = load(folder)
    sequences = encoded(engine)
    for one, stats in zip(sequences, engine.score(sequences), strict=True):
        assert_matches(stats, own_logits(model, one), one)
        assert stats.entropy.max() < math.log(len(used))


class TestNumbersThatAreNotFinite:
    def test_nan_weights(self, folder: Path) -> None:
        change_weights(folder, lambda weights: weights["lm_head.weight"][7].fill_(torch.nan))
        engine = load(folder)
        with pytest.raises(
            CandidateError, match=r"'tiny': NaN or infinite .* solution token 0 of instance 'q1'"
        ):
            engine.score(encoded(engine)[1:2])

    def test_the_first_bad_token_is_named(self, tmp_path: Path) -> None:
        # In a recurrent model all that follows the first occurrence of a token has seen its embedding, and
        # no more.
        folder = tmp_path / "model"
        settings = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
        save_model(folder, transformers.MambaConfig(**settings, tie_word_embeddings=False))
        one = encoded(load(folder))[1]
        prompt, solution = (
            one.input_ids[: one.first_scored].tolist(),
            one.input_ids[one.first_scored :].tolist(),
        )
        token = next(token for token in solution[3:] if token not in prompt + solution[:3])
        bad = solution.index(token)
        change_weights(folder, lambda weights: weights["backbone.embeddings.weight"][token].fill_(torch.nan))
        broken = load(folder)
        with pytest.raises(CandidateError, match=f"solution token {bad + 1} of instance 'q1', task 'sums'"):
            broken.score([one])

    def test_positions_are_those_of_the_whole_solution(self, folder: Path) -> None:
        change_weights(folder, lambda weights: weights["lm_head.weight"][7].fill_(torch.nan))
        engine = load(folder)
        one = encoded(engine)[1]
        window = replace(one, n_bytes=one.n_bytes[4:], first_position=4)
        with pytest.raises(CandidateError, match="solution token 4 of instance"):
            engine.score([window])

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_infinite_logits(self, tmp_path: Path, dtype: str) -> None:
        folder = tmp_path / "model"
        save_model(folder, MODELS["phi (bias on the head)"]())
        change_weights(folder, lambda weights: weights["lm_head.bias"][7].fill_(torch.inf))
        engine = load(folder, dtype=dtype)
        with pytest.raises(
            CandidateError, match=r"'tiny'.*solution token 0 of instance 'q0'.*dtype too narrow"
        ):
            engine.score(encoded(engine)[:1])


class TestVocabulary:
    def test_size_given_by_the_user(self, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        model = save_model(folder, llama(vocab_size=VOCABULARY + 52))
        engine = load(folder, vocab_size=VOCABULARY + 20)
        assert engine.facts.vocab_size == VOCABULARY + 20
        one = encoded(engine)[1]
        assert_matches(engine.score([one])[0], own_logits(model, one, VOCABULARY + 20), one)

    def test_size_beyond_the_output_matrix(self, folder: Path) -> None:
        with pytest.raises(CandidateError, match=r"'tiny': vocab_size 301 is more than .* \(300\)"):
            load(folder, vocab_size=301)

    def test_target_beyond_it(self, folder: Path) -> None:
        engine = load(folder)
        one = encoded(engine)[1]
        token = int(one.input_ids[one.first_scored :].max())
        piece = re.escape(repr(engine.tokenizer.convert_ids_to_tokens(token)))
        narrow = load(folder, vocab_size=token)
        expected = (
            rf"'tiny': token {token} \({piece}\) at position \d+ of instance 'q1'.*vocabulary of {token}"
        )
        with pytest.raises(CandidateError, match=expected):
            narrow.score([one])

    def test_prompts_may_hold_what_cannot_be_scored(self, folder: Path) -> None:
        engine = load(folder, vocab_size=290)
        one = encoded(engine)[1]
        ids = one.input_ids.copy()
        ids[0], ids[one.first_scored :] = 299, 100
        assert np.isfinite(engine.score([replace(one, input_ids=ids)])[0].logprob).all()

    def test_tokenizer_of_another_model(self, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        save_model(folder, llama(vocab_size=250))
        save_tokenizer(folder)
        engine = load(folder)
        assert engine.facts.vocab_size == 250
        with pytest.raises(
            CandidateError, match=r"'tiny': token 2[5-9]\d .* outside the vocabulary of 250; the tokenizer"
        ):
            engine.score(encoded(engine))


class TestContext:
    @pytest.mark.parametrize(
        ("model", "expected"),
        [("llama", 256), ("gpt2 (Conv1D, tied, learned positions)", 256), ("bloom (alibi)", None)],
    )
    def test_length_by_the_model(self, model: str, expected: int | None, tmp_path: Path) -> None:
        save_model(tmp_path, MODELS[model]())
        assert load(tmp_path).facts.context_length == expected

    def test_length_given_by_the_user(self, folder: Path) -> None:
        assert load(folder, context_length=40).facts.context_length == 40
        assert load(folder, context_length=400).facts.context_length == 400

    def test_length_beyond_learned_positions(self, tmp_path: Path) -> None:
        save_model(tmp_path, GPT2)
        assert load(tmp_path, context_length=256).facts.context_length == 256
        with pytest.raises(CandidateError, match=r"'tiny': context_length 257 .* positions has \(256\)"):
            load(tmp_path, context_length=257)


CAPPED = transformers.RecurrentGemmaConfig(
    **shape(head_dim=8, lru_width=32, attention_window_size=32, num_key_value_heads=1, num_hidden_layers=3)
)  # `logits_soft_cap` 30, where the random model's logits reach 6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_unknown_soft_cap_far_above_the_logits_is_refused_in_every_dtype(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path, CAPPED)
    load(tmp_path, dtype=dtype)
    known = tuple(key for key in torch_engine._SOFTCAPS if key != "logits_soft_cap")
    monkeypatch.setattr(torch_engine, "_SOFTCAPS", known)
    with pytest.raises(CandidateError, match="output head of RecurrentGemmaForCausalLM computes something"):
        load(tmp_path, dtype=dtype)


STATES_IN_FP32: dict[str, Callable[[], Any]] = {
    "mamba": MODELS["mamba (state space)"],
    "falcon-mamba": lambda: transformers.FalconMambaConfig(
        hidden_size=32, num_hidden_layers=2, vocab_size=VOCABULARY
    ),
    "mamba2": lambda: transformers.Mamba2Config(
        hidden_size=32,
        num_hidden_layers=2,
        vocab_size=VOCABULARY,
        num_heads=8,
        head_dim=8,
        state_size=16,
        n_groups=2,
    ),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", STATES_IN_FP32)
def test_hidden_states_wider_than_the_head_give_the_numbers_of_transformers(
    kind: str, dtype: str, tmp_path: Path
) -> None:
    save_model(tmp_path, STATES_IN_FP32[kind]())
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=getattr(torch, dtype))
    engine = load(tmp_path, dtype=dtype)
    sequences = encoded(engine)
    for one, stats in zip(sequences, engine.score(sequences), strict=True):
        targets = torch.from_numpy(one.input_ids[one.first_scored :])
        plain = reference_stats(own_logits(model, one), targets)
        # A unit in the last place of the largest logits: batches may round otherwise.
        np.testing.assert_allclose(stats.logprob, plain.logprob.numpy(), rtol=0, atol=5e-3)


class TestModelsThatAreNotUnderstood:
    def test_a_head_that_does_more(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def scaled(config: Any) -> float:
            return 1.01

        monkeypatch.setattr(torch_engine, "_logit_scale", scaled)
        with pytest.raises(
            CandidateError, match="'tiny': the output head of LlamaForCausalLM computes something"
        ):
            load(folder)

    def test_a_masked_language_model(self, tmp_path: Path) -> None:
        settings = without(shape(), "num_key_value_heads", "pad_token_id", "bos_token_id", "eos_token_id")
        save_model(tmp_path, transformers.BertConfig(**settings))
        with pytest.raises(
            CandidateError, match="'tiny': the output head of BertLMHeadModel computes something"
        ):
            load(tmp_path)

    def test_a_model_that_sees_later_tokens(self, tmp_path: Path) -> None:
        save_model(tmp_path, transformers.GemmaConfig(**shape(head_dim=8)))
        load(tmp_path)
        change_config(tmp_path, use_bidirectional_attention=True)
        with pytest.raises(CandidateError, match="'tiny': GemmaForCausalLM sees later tokens too"):
            load(tmp_path)


def test_facts_say_where_and_with_what_it_ran(folder: Path) -> None:
    candidate, _ = resolve(folder)
    facts = load_engine(candidate, EngineConfig(device="cpu")).facts
    assert facts.device == "cpu"
    assert facts.versions == {"torch": torch.__version__, "transformers": transformers.__version__}


def test_a_variant_that_cannot_be_made_names_the_candidate(folder: Path) -> None:
    with pytest.raises(
        CandidateError, match=r"candidate 'tiny': drop_layers 99 does not fit a model of \d+ layers"
    ):
        load(folder, drop_layers=99)


def test_a_model_that_cannot_read_is_one_sentence(tmp_path: Path) -> None:
    settings = without(shape(), "num_key_value_heads", "pad_token_id")
    save_model(tmp_path, transformers.RobertaConfig(**settings, pad_token_id=1, is_decoder=True))
    change_config(tmp_path, pad_token_id=None)  # which positions are counted from
    with pytest.raises(CandidateError, match="'tiny': RobertaForCausalLM cannot read a short text"):
        load(tmp_path)
