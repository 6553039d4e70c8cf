"""Matches against a reference that compares strings, with the corpus cut anywhere."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast.analysis.diagnostics import ngram_index
from forecast.analysis.diagnostics.ngram_index import Overlap


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def characters(text: str) -> list[str]:
    return list(re.sub(r"\s+", " ", text.casefold()))


def reference(text: str, documents: list[str], n: int, unit: str) -> tuple[int, int, int]:
    """n-grams of the text, those in the corpus, symbols of the longest covered stretch."""
    split = words if unit == "words" else characters
    corpus = {tuple(s[i : i + n]) for s in map(split, documents) for i in range(len(s) - n + 1)}
    own = split(text)
    hits = [tuple(own[i : i + n]) in corpus for i in range(len(own) - n + 1)]
    longest = run = 0
    for hit in hits:
        run = run + 1 if hit else 0
        longest = max(longest, run)
    return len(hits), sum(hits), longest + n - 1 if longest else 0


def check(texts: list[str], documents: list[list[str]], n: int, unit: str) -> None:
    """`documents`: each as the pieces that it comes in."""
    overlap = Overlap(texts, n, unit)  # type: ignore[arg-type]
    for pieces in documents:
        for i, piece in enumerate(pieces):
            overlap.feed(piece, starts=i == 0)
    whole = ["".join(pieces) for pieces in documents]
    for text, found in zip(texts, overlap.results(), strict=True):
        assert (found.ngrams, found.matched, found.longest_run) == reference(text, whole, n, unit)
        if found.matched:
            split = words if unit == "words" else characters
            excerpt = (" " if unit == "words" else "").join(split(text))
            assert found.excerpt in excerpt


_text = st.text(st.sampled_from("ab  \n.,ßΣé中_1"), max_size=40)


@pytest.mark.parametrize("unit", ["words", "characters"])
@given(
    texts=st.lists(_text, max_size=4),
    documents=st.lists(st.lists(_text, max_size=4), max_size=4),
    n=st.integers(1, 5),
)
@settings(max_examples=150, deadline=None)
def test_matches_equal_string_comparison(
    unit: str, texts: list[str], documents: list[list[str]], n: int
) -> None:
    check(texts, documents, n, unit)


def test_long_documents_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram_index, "_LONG", 64)
    rng = random.Random(3)
    vocabulary = [f"w{i}" for i in range(40)]
    document = " ".join(rng.choice(vocabulary) for _ in range(3000))
    texts = [document[500:900], " ".join(vocabulary), "and " + document[1000:1200] + " none of this"]
    for unit, n in (("words", 13), ("characters", 50)):
        cuts = sorted(rng.sample(range(len(document)), 20))
        pieces = [document[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        check(texts, [pieces, ["unrelated"]], n, unit)


def test_matches_ignore_case_and_punctuation() -> None:
    overlap = Overlap(["He said: To be, or NOT to be? That is it.", "short"], 6, "words")
    overlap.feed("x " * 50 + "to be -- or not\nto be!", starts=True)
    first, second = overlap.results()
    assert (first.ngrams, first.matched, first.longest_run) == (6, 1, 6)
    assert first.excerpt == "to be or not to be"
    assert first.share == pytest.approx(1 / 6)
    assert (second.ngrams, second.share) == (0, None)


def test_matches_do_not_span_documents() -> None:
    overlap = Overlap(["one two three"], 3, "words")
    overlap.feed("one two", starts=True)
    overlap.feed("three", starts=True)
    assert overlap.results()[0].matched == 0
    overlap.feed("one two", starts=True)
    overlap.feed(" three", starts=False)
    assert overlap.results()[0].matched == 1


def test_no_texts_and_no_corpus() -> None:
    assert Overlap([], 13, "words").results() == []
    overlap = Overlap(["", "a b c"], 2, "words")
    assert [found.matched for found in overlap.results()] == [0, 0]
    assert overlap.ngrams == 2
