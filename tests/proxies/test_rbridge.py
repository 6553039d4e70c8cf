"""rBridge: frontier probabilities laid over a candidate's tokens by letters."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from forecast.errors import InputError
from forecast.proxies.rbridge import (
    FrontierTokens,
    Weights,
    rbridge_by_instance,
    rbridge_score,
    read_frontier_tokens,
    spans_from_counts,
    token_weights,
)

Array = NDArray[np.float64]
ALPHABET = "ab é語😀\n"


def cut(rng: np.random.Generator, total: int) -> NDArray[np.int64]:
    """Random spans that cover all bytes, letters cut as it comes."""
    inner = np.sort(rng.choice(np.arange(1, total), size=int(rng.integers(0, total)), replace=False))
    edges = np.concatenate([[0], inner, [total]]).astype(np.int64)
    return np.column_stack([edges[:-1], edges[1:]])


def slow_weights(text: str, candidate: NDArray[np.int64], spans: NDArray[np.int64], probs: Array) -> Array:
    """The definition, letter by letter."""
    bytes_of, at = [], 0
    for letter in text:
        bytes_of.append(set(range(at, at + len(letter.encode()))))
        at += len(letter.encode())
    frontier = [(set(range(s, e)), p) for (s, e), p in zip(spans, probs, strict=True)]
    raw = []
    for start, end in candidate:
        own = set(range(start, end))
        letters = [b for b in bytes_of if b & own]
        raw.append(np.mean([np.mean([p for held, p in frontier if held & b]) for b in letters]))
    found = np.array(raw)
    return (
        (found - found.min()) / (found.max() - found.min()) if np.ptp(found) > 1e-9 else np.ones(len(found))
    )


@pytest.mark.parametrize("seed", range(60))
def test_against_the_definition_on_random_texts_and_cuts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    text = "".join(rng.choice(list(ALPHABET), size=int(rng.integers(2, 25))))
    total = len(text.encode())
    candidate, spans = cut(rng, total), cut(rng, total)
    frontier = FrontierTokens(spans, rng.random(len(spans)))
    found = token_weights(text, candidate, frontier)
    np.testing.assert_allclose(
        found.normalised, slow_weights(text, candidate, spans, frontier.probabilities), atol=1e-9
    )


def test_a_case_by_hand() -> None:
    """Text "abcd": candidate ab|c|d, frontier a (0.2) | bcd (0.8)."""
    frontier = FrontierTokens(np.array([[0, 1], [1, 4]]), np.array([0.2, 0.8]))
    weights = token_weights("abcd", np.array([[0, 2], [2, 3], [3, 4]]), frontier)
    np.testing.assert_allclose(weights.raw, [0.5, 0.8, 0.8])
    np.testing.assert_allclose(weights.normalised, [0, 1, 1])
    assert rbridge_score(np.array([3.0, 1.0, 0.5]), weights) == pytest.approx(1.5 / 3)


def test_letters_count_once_however_many_bytes_they_have() -> None:
    """語 has three bytes and a one: the mean over letters is 0.5, over bytes it would be 0.75."""
    frontier = FrontierTokens(np.array([[0, 3], [3, 4], [4, 5]]), np.array([1.0, 0.0, 0.2]))
    weights = token_weights("語ab", np.array([[0, 4], [4, 5]]), frontier)
    assert weights.raw[0] == pytest.approx(0.5)


def test_a_constant_trace_is_plain_cross_entropy() -> None:
    frontier = FrontierTokens(np.array([[0, 2], [2, 3], [3, 7]]), np.full(3, 0.1 + 0.2))
    weights = token_weights("abcdefg", np.array([[0, 1], [1, 5], [5, 7]]), frontier)
    assert weights.constant
    losses = np.array([0.1, 0.5, 2.0])
    assert rbridge_score(losses, weights) == pytest.approx(losses.mean())
    assert token_weights(
        "a", np.array([[0, 1]]), FrontierTokens(np.array([[0, 1]]), np.array([0.3]))
    ).constant


def test_a_window_at_the_end_is_weighted_by_itself() -> None:
    counts = np.array([2, 1, 4])
    spans = spans_from_counts(counts, 20)
    np.testing.assert_array_equal(spans, [[13, 15], [15, 16], [16, 20]])
    frontier = FrontierTokens(np.array([[i, i + 1] for i in range(20)]), np.linspace(0, 1, 20))
    weights = token_weights("x" * 20, spans, frontier)
    assert weights.normalised.min() == 0 and weights.normalised.max() == 1


def test_the_rest_of_a_letter_without_bytes_takes_that_letter() -> None:
    spans = spans_from_counts(np.array([1, 4, 0, 1]), 6)  # a, and an emoji whose last piece has no byte left
    frontier = FrontierTokens(np.array([[0, 1], [1, 5], [5, 6]]), np.array([0.1, 0.6, 1.0]))
    np.testing.assert_allclose(token_weights("a😀b", spans, frontier).raw, [0.1, 0.6, 0.6, 1.0])


def test_frontier_tokens_are_read_in_all_their_forms() -> None:
    emoji = list("😀".encode())
    value = [
        {"text": "Hé", "prob": 0.5},
        {"bytes": emoji[:2], "logprob": math.log(0.25)},
        {"text": None, "bytes": bytes(emoji[2:]), "prob": 1, "logprob": None},
        {"text": "", "prob": 0.0},
        {"text": "!", "logprob": 0},
    ]
    found = read_frontier_tokens(value, "Hé😀!", "s.jsonl:1")
    np.testing.assert_array_equal(found.spans, [[0, 3], [3, 5], [5, 7], [7, 7], [7, 8]])
    np.testing.assert_allclose(found.probabilities, [0.5, 0.25, 1, 0, 1])
    weights = token_weights("Hé😀!", np.array([[0, 3], [3, 7], [7, 8]]), found)
    np.testing.assert_allclose(weights.raw, [0.5, 0.625, 1], err_msg="a token without text covers nothing")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "s.jsonl:7: frontier_tokens holds None, expected a list"),
        ([], "expected a list"),
        (["ab"], "frontier token 1 is 'ab', expected"),
        ([{"text": "ab", "prob": 0.5}], "the 1 frontier tokens end before 'c'"),
        (
            [{"text": "<s>", "prob": 1.0}, {"text": "abc", "prob": 0.5}],
            "token 1 is '<s>', but .* goes on with 'abc'",
        ),
        ([{"text": "abc", "prob": 0.5}, {"text": "d", "prob": 1}], "token 2 is 'd', but .* goes on with ''"),
        ([{"text": "abc"}], "token 1: has no probability; give prob or logprob"),
        ([{"text": "abc", "prob": 0.5, "logprob": -1}], "has prob and logprob"),
        ([{"text": "abc", "prob": 50}], "prob is 50, expected 0..1"),
        ([{"text": "abc", "prob": -0.5}], "prob is -0.5, expected 0..1"),
        ([{"text": "abc", "prob": math.nan}], "prob is nan"),
        ([{"text": "abc", "prob": True}], "prob is True"),
        ([{"text": "abc", "logprob": 0.5}], "logprob is 0.5, expected 0 or below"),
        ([{"bytes": [97, 300], "prob": 1}], "expected a text, or bytes"),
        ([{"token": "abc", "prob": 1}], "text is None and bytes None"),
    ],
)
def test_frontier_tokens_of_another_form_are_refused(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_frontier_tokens(value, "abc", "s.jsonl:7")


def test_what_does_not_fit_is_refused() -> None:
    frontier = FrontierTokens(np.array([[0, 2]]), np.array([0.5]))
    with pytest.raises(InputError, match=r"no frontier token covers letter 3 of 'abc' .'c'."):
        token_weights("abc", np.array([[0, 3]]), frontier)
    token_weights("abc", np.array([[0, 2]]), frontier)  # what the candidate does not read may stay bare
    with pytest.raises(InputError, match="candidate tokens stand outside the 3 bytes"):
        token_weights("abc", np.array([[0, 4]]), frontier)
    with pytest.raises(InputError, match="no candidate tokens"):
        token_weights("abc", np.empty((0, 2), np.int64), frontier)
    with pytest.raises(InputError, match="9 bytes for a solution of 5 bytes"):
        spans_from_counts(np.array([4, 5]), 5)
    weights = Weights(np.ones(2), np.ones(2), constant=True)
    with pytest.raises(InputError, match="negative or not finite"):
        rbridge_score(np.array([1.0, -0.5]), weights)
    with pytest.raises(InputError, match="1 losses for 2 weights"):
        rbridge_score(np.array([1.0]), weights)


def test_rows_of_the_lake_by_instance() -> None:
    frontier = read_frontier_tokens([{"text": "ab", "prob": 0.2}, {"text": "cd", "prob": 0.6}], "abcd", "x")
    tokens = pl.DataFrame(
        {
            "expert": ["k2", "k2", "k2", "k2"],
            "instance_id": ["q2", "q1", "q1", "q1"],
            "position": [0, 2, 0, 1],
            "n_bytes": [4, 1, 2, 1],
            "logprob": [-1.0, -3.0, -1.0, -2.0],
        },
        schema_overrides={"logprob": pl.Float32},
    )
    found = rbridge_by_instance(tokens, {("k2", "q1"): ("abcd", frontier), ("k2", "q2"): ("abcd", None)})
    assert found["rbridge"].to_list() == [pytest.approx((0 * 1 + 2 + 3) / 3), None]
    assert found["n_tokens"].to_list() == [3, 1]
    assert found["reason"].to_list() == [None, "the trajectory has no frontier_tokens"]
    with pytest.raises(InputError, match="instance 'q1': scored, but no such trajectory"):
        rbridge_by_instance(tokens, {("k2", "q2"): ("abcd", None)})
    with pytest.raises(
        InputError, match="expert 'k2', instance 'q1': 3 tokens of 4 bytes for a solution of 3"
    ):
        rbridge_by_instance(tokens, {("k2", "q1"): ("abc", frontier), ("k2", "q2"): ("abcd", None)})
