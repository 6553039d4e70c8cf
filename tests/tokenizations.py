"""One model of bytes, read through several tokenizers: what differs then is due to the cuts alone.

The model is a Markov chain of order two over six letters. A tokenizer cuts the text into pieces of given
lengths; where a piece of k letters is due, its vocabulary is all strings of k letters, and the probability of
each is the product of its letters' probabilities. So every tokenizer gives the text exactly the same
probability. Log-probabilities of letters are multiples of 1/64 nat: the lake's 32 bits hold all sums of them
exactly. What is left over belongs to an end that never comes.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cache

import numpy as np

LETTERS = "abcdef"
V = len(LETTERS)
Text = tuple[int, ...]
CUTS = {"letters": (1,), "pairs": (2,), "one and three": (1, 3), "triples": (3,)}


@cache
def model(flatness: float, seed: int = 0) -> np.ndarray:
    """Log-probabilities [V, V, V] of a letter after two others; peaked for a small flatness."""
    p = np.random.default_rng(seed).dirichlet(np.full(V, flatness), size=(V, V))
    return (
        -np.ceil(-np.log(np.maximum(p, 1e-4)) * 64 + 1) / 64
    )  # rounded down, so that they sum to less than 1


def draw(logp: np.ndarray, length: int, rng: np.random.Generator) -> Text:
    """A text that the model writes."""
    text = [0, 0]
    for _ in range(length):
        p = np.exp(logp[text[-2], text[-1]])
        text.append(int(rng.choice(V, p=p / p.sum())))
    return tuple(text[2:])


def tokens(logp: np.ndarray, text: Text, cuts: Sequence[int]) -> list[dict[str, float]]:
    """The rows of the lake for a text cut into pieces of these lengths, again and again."""
    found = []
    at = 0
    for length in itertools.cycle(cuts):
        if at >= len(text):
            return found
        piece = text[at : at + length]
        before = (0, 0, *text)[at : at + 2]
        choices = _pieces(logp.tobytes(), before, len(piece))
        own = choices[_place(piece)]
        p = np.exp(choices)
        left = 1 - p.sum()
        found.append(
            {
                "token_id": sum(V**k for k in range(1, len(piece))) + _place(piece),
                "n_bytes": len(piece),
                "logprob": float(own),
                "entropy": float(-(p * choices).sum() - left * math.log(left)),
                "rank": 1 + int((choices > own).sum()),
                "top1_logprob": float(choices.max()),
            }
        )
        at += len(piece)
    raise AssertionError


def _place(piece: Text) -> int:
    """Of a string among all of its length."""
    return sum(letter * V**i for i, letter in enumerate(reversed(piece)))


@cache
def _pieces(logp_bytes: bytes, before: tuple[int, int], length: int) -> np.ndarray:
    """Log-probabilities of all strings of a length: [V ** length]."""
    logp = np.frombuffer(logp_bytes).reshape(V, V, V)
    found = {(): (0.0, before)}
    for _ in range(length):
        found = {
            (*key, c): (value + logp[a, b, c], (b, c))
            for key, (value, (a, b)) in found.items()
            for c in range(V)
        }
    return np.array([value for value, _ in found.values()])
