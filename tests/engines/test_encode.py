"""Encoding: the boundary is exact, bytes add up, windows and contexts are kept, for several tokenizers."""

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from forecast.config.schema import Window
from forecast.engines.encode import Encoded, Unscored, byte_counts, encode
from forecast.errors import CandidateError
from forecast.inputs.trajectories import Trajectory

LINES = ["the answer is the sum of the two", "Answer: 42 is the answer", "hello world, hello the world"] * 3
CODE = [
    "def the():\n    is\n    the\n\n    answer",
    "a\n  b\n  c",
] * 3  # makes tokens of spaces and line breaks
CHAT = "<s>[U]{{ messages[0]['content'] }}[A]{% if not add_generation_prompt %}closed{% endif %}"


@cache
def byte_level(trim_offsets: bool = False, special: str = "<s> $A </s>") -> Any:
    """Byte-level BPE as of GPT-2, Llama, Qwen or Pythia (which trims offsets)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES + CODE, trainer)
    steps: list[Any] = [processors.ByteLevel(trim_offsets=trim_offsets)]
    if special:
        steps.append(processors.TemplateProcessing(single=special, special_tokens=[("<s>", 0), ("</s>", 1)]))
    tokenizer.post_processor = processors.Sequence(steps)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=CHAT
    )


@cache
def metaspace() -> Any:
    """Unigram with a metaspace, without special tokens; unknown characters become one token."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@cache
def wordpiece() -> Any:
    """WordPiece as of BERT: lower case, accents stripped, spaces dropped; `[CLS] text [SEP]`."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]")


def encode_one(prompt: str, solution: str, tokenizer: Any, **options: Any) -> Encoded | Unscored:
    defaults = {
        "candidate": "it",
        "prompt_form": "raw",
        "window": Window(),
        "context_length": None,
        "truncate_prefix": False,
    }
    (one,) = encode([Trajectory("t", "i", "e", prompt, solution)], tokenizer, **{**defaults, **options})
    return one


def encoded(prompt: str, solution: str, tokenizer: Any, **options: Any) -> Encoded:
    one = encode_one(prompt, solution, tokenizer, **options)
    assert isinstance(one, Encoded), one
    return one


def tokens(one: Encoded, tokenizer: Any) -> tuple[list[str], list[str]]:
    """What is read only, and what is scored."""
    names = tokenizer.convert_ids_to_tokens(one.input_ids.tolist())
    return names[: one.first_scored], names[one.first_scored :]


def plain(names: list[str]) -> str:
    """The text of byte-level tokens, as long as it is ASCII."""
    return "".join(names).replace("Ġ", " ")


TEXT = st.text(
    st.one_of(
        st.sampled_from("thean swr.,:42\n \n "),
        st.sampled_from(" \u3000é中文😀👩‍🚀ﷺ\u0301\u200d"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=30,
)


# -- properties --


@pytest.mark.parametrize("trim_offsets", [False, True])
@settings(max_examples=150, deadline=None)
@given(prompt=TEXT, solution=TEXT)
@example(prompt="Answer: ", solution="hello")  # the last space of the prompt is a token that trims to nothing
@example(prompt="a\n", solution="\n    b")
@example(prompt="a\n ", solution="   b")
@example(prompt="is", solution=" the 👩‍🚀😀")
@example(prompt="", solution="😀")
def test_byte_level_tokens_are_split_where_their_true_bytes_say(
    trim_offsets: bool, prompt: str, solution: str
) -> None:
    tokenizer = byte_level(trim_offsets)
    text = (prompt + solution).encode()
    one = encode_one(prompt, solution, tokenizer)
    # The reference needs no offsets: each character of a byte-level token's name stands for one byte.
    names = tokenizer.convert_ids_to_tokens(tokenizer(prompt + solution)["input_ids"])
    lengths = [0 if name in ("<s>", "</s>") else len(name) for name in names]
    assert sum(lengths) == len(text)
    starts = np.cumsum([0, *lengths])
    first = next(
        (
            i
            for i, start in enumerate(starts[:-1])
            # at or behind the boundary, an ordinary token, and not in the middle of a character
            if start >= len(prompt.encode()) and lengths[i] and text[start] & 0xC0 != 0x80
        ),
        None,
    )
    if first is None:
        assert isinstance(one, Unscored)
        return
    assert isinstance(one, Encoded)
    assert one.first_scored == first
    assert len(one.input_ids) == len(names) - 1, "the closing </s> is not scored"
    assert one.n_bytes.tolist() == lengths[first:-1], "also of tokens that hold a part of a character"
    assert one.n_bytes.sum() == len(text) - starts[first]


@pytest.mark.parametrize("build", [metaspace, wordpiece])
@settings(max_examples=150, deadline=None)
@given(prompt=TEXT, solution=TEXT)
@example(prompt="Answer:  ", solution=" hello  ")
@example(prompt="x", solution=" ")
def test_bytes_add_up_to_the_solution_behind_the_last_prompt_token(
    build: Any, prompt: str, solution: str
) -> None:
    tokenizer = build()
    one = encode_one(prompt, solution, tokenizer)
    if isinstance(one, Unscored):
        return
    spans = tokenizer(prompt + solution, return_offsets_mapping=True)["offset_mapping"]
    assert spans[one.first_scored][0] >= len(prompt), "what is scored stands for nothing of the prompt"
    end_of_prompt_tokens = max(end for _, end in spans[: one.first_scored])
    behind = max(end_of_prompt_tokens, len(prompt))
    assert one.n_bytes.sum() == len((prompt + solution)[behind:].encode())
    assert one.n_bytes.min() >= 0


@settings(max_examples=100, deadline=None)
@given(text=TEXT.filter(bool), data=st.data())
def test_byte_counts_add_up_for_any_spans(text: str, data: Any) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    edges = st.integers(start, len(text))
    spans = data.draw(st.lists(st.tuples(edges, edges).map(sorted), min_size=1, max_size=8).map(sorted))
    counts = byte_counts(text, start, np.array(spans))
    assert counts.sum() == len(text[start:].encode())
    assert counts.min() >= 0


def test_byte_counts_of_shared_dropped_and_trailing_characters() -> None:
    #        0 1 2  3   4 5
    text = "ab 😀é  "
    spans = np.array([[1, 2], [3, 4], [3, 4], [3, 4], [4, 5]])
    # The second token has the dropped space and shares the emoji with two more; the last has what trails.
    assert byte_counts(text, 1, spans).tolist() == [1, 2, 2, 1, 4]
    assert byte_counts(text, 1, spans).sum() == len(text[1:].encode())


def test_tokens_that_share_a_character_have_their_own_bytes() -> None:
    # "é" (2 bytes) and an emoji (4), both cut in the middle; the names are those of byte-level BPE.
    names = ["x", "Ã", "©ðŁ", "ĺĢ", "b"]
    tokenizer = _Made([1, 2, 3, 4, 5], [(0, 1), (1, 2), (1, 3), (2, 3), (3, 4)], names)
    assert encoded("x", "é😀b", tokenizer).n_bytes.tolist() == [1, 3, 2, 1]


def test_tokens_that_share_a_character_share_its_bytes_where_their_names_do_not_add_up() -> None:
    tokenizer = _Made([1, 2, 3, 4], [(0, 1), (1, 2), (1, 2), (2, 3)], ["x", "longer", "names", "b"])
    assert encoded("x", "😀b", tokenizer).n_bytes.tolist() == [2, 2, 1]


def test_byte_fallback_tokens_stand_for_one_byte_each() -> None:
    tokenizer = _Made(
        [1, 2, 3, 4, 5], [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)], ["x", "<0xE4>", "<0xB8>", "<0xAD>", "b"]
    )
    assert encoded("x", "中b", tokenizer).n_bytes.tolist() == [1, 1, 1, 1]


# -- the boundary --


@pytest.mark.parametrize("trim_offsets", [False, True])
def test_a_token_that_starts_before_the_boundary_belongs_to_the_prompt(trim_offsets: bool) -> None:
    tokenizer = byte_level(trim_offsets)
    one = encoded("is ", "the answer", tokenizer)
    assert tokens(one, tokenizer) == (["<s>", "is", "Ġthe"], ["Ġanswer"])
    assert one.n_bytes.tolist() == [len(" answer")]
    assert one.first_position == 0


def test_a_space_that_the_tokenizer_drops_at_the_boundary_loses_no_token() -> None:
    tokenizer = wordpiece()
    for prompt, solution, n_bytes in [
        ("Answer: ", "hello world", [5, 6]),
        ("Answer:", " hello world", [6, 6]),
    ]:
        one = encoded(prompt, solution, tokenizer)
        assert tokens(one, tokenizer) == (["[CLS]", "answer", ":"], ["hello", "world"])
        assert one.n_bytes.tolist() == n_bytes


def test_prompt_and_solution_are_encoded_together() -> None:
    tokenizer = byte_level()
    one = encoded("Ans", "wer: 42", tokenizer)
    assert one.input_ids.tolist() == tokenizer("Answer: 42")["input_ids"][:-1]
    assert tokens(one, tokenizer) == (["<s>", "Answer"], [":", "Ġ42"])
    assert one.n_bytes.tolist() == [1, 3], "the bytes of `wer` went with the prompt's token"


def test_rest_of_a_character_begun_by_a_prompt_token_belongs_to_the_prompt() -> None:
    # The first token is "a" and the first byte of the emoji, the second the rest of the emoji, the third "b".
    tokenizer = _Made([7, 8, 9], offsets=[(0, 2), (1, 2), (2, 3)])
    one = encoded("a", "😀b", tokenizer)
    assert (one.first_scored, one.n_bytes.tolist()) == (2, [1])


class _Made:
    """A tokenizer that answers with what it is given."""

    is_fast = True

    def __init__(
        self, ids: list[int], offsets: list[tuple[int, int]], names: Sequence[str] | None = None
    ) -> None:
        self._names = dict(zip(ids, names or [], strict=False))
        self._answer = {
            "input_ids": [ids],
            "offset_mapping": [offsets],
            "special_tokens_mask": [[0] * len(ids)],
        }

    def __call__(self, texts: list[str], **_: Any) -> dict[str, Any]:
        assert len(texts) == 1
        return self._answer

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self._names[i] for i in ids]


def test_special_tokens_around_the_text_are_not_scored() -> None:
    tokenizer = byte_level()
    one = encoded("", "hello", tokenizer)
    assert tokens(one, tokenizer) == (["<s>"], ["hello"])


def test_none_of_several_leading_special_tokens_is_scored() -> None:
    tokenizer = byte_level(special="<s> </s> $A")
    one = encoded("", "hello", tokenizer)
    assert tokens(one, tokenizer) == (["<s>", "</s>"], ["hello"])


def test_special_tokens_in_the_experts_text_are_text() -> None:
    tokenizer = byte_level()
    one = encoded("is", " the</s>", tokenizer)
    assert tokens(one, tokenizer) == (["<s>", "is"], ["Ġthe", "</s>"])
    assert one.n_bytes.tolist() == [4, 4]


def test_nothing_precedes_the_first_token_of_a_sequence() -> None:
    tokenizer = byte_level(special="")
    one = encoded("", "hello world", tokenizer)
    assert tokens(one, tokenizer) == (["hello"], ["Ġworld"])
    assert one.n_bytes.tolist() == [len(" world")], "the bytes of `hello` count for nobody"


def test_a_solution_within_the_prompts_last_token_is_reported() -> None:
    one = encode_one("hel", "lo", byte_level())
    assert isinstance(one, Unscored)
    assert one.reason == "no token starts inside the solution"
    spaced = encode_one("hello ", "world", byte_level())
    assert isinstance(spaced, Unscored) and spaced.reason.endswith("begin the solution with it instead")


@pytest.mark.parametrize("special", ["<s> $A </s>", "<s> $A", ""])
def test_the_start_token_is_not_put_before_its_own_text(special: str) -> None:
    tokenizer = byte_level(special=special)
    without, own, inside = (
        encoded(prompt, " is 42", tokenizer) for prompt in ("the answer", "<s>the answer", "the <s>")
    )
    assert own.input_ids.tolist() == [0, *without.input_ids[bool(special) :]]
    assert own.n_bytes.tolist() == without.n_bytes.tolist()
    assert inside.input_ids.tolist().count(0) == 1 + bool(special)
    specials = byte_level(special="<s> </s> $A")
    several = [encoded(prompt, " is 42", specials) for prompt in ("the", "<s></s>the", "</s>the")]
    assert [one.input_ids.tolist() for one in several] == 3 * [several[0].input_ids.tolist()]
    alone = encoded("", "<s>the answer", byte_level())
    assert alone.input_ids.tolist()[:2] == [0, 0] and alone.first_scored == 1


# -- windows --

SIX = (
    " the answer is the sum 4",
    ["Ġthe", "Ġanswer", "Ġis", "Ġthe", "Ġsum", "Ġ", "4"],
    [4, 7, 3, 4, 4, 1, 1],
)


@pytest.mark.parametrize(
    ("window", "n_scored"),
    [
        (Window(), 7),
        (Window(last_tokens=3), 3),
        (Window(last_tokens=7), 7),
        (Window(last_tokens=99), 7),
        (Window(last_bytes=1), 1),
        (Window(last_bytes=5), 2),
        (Window(last_bytes=6), 3),
        (Window(last_bytes=24), 7),
        (Window(last_bytes=999), 7),
    ],
)
def test_the_window_is_the_end_of_the_solution(window: Window, n_scored: int) -> None:
    solution, names, sizes = SIX
    tokenizer = byte_level()
    one = encoded("hello", solution, tokenizer, window=window)
    assert tokens(one, tokenizer)[1] == names[-n_scored:]
    assert one.n_bytes.tolist() == sizes[-n_scored:]
    assert one.first_position == 7 - n_scored
    assert len(one.input_ids) == 2 + 7, "the whole prefix is read"


def test_a_window_smaller_than_the_last_token_is_reported() -> None:
    one = encode_one("is", " answer", byte_level(), window=Window(last_bytes=6))
    assert isinstance(one, Unscored)
    assert one.reason == "its last token alone is longer than the window of 6 bytes"


# -- chat form --


def test_the_chat_form_ends_the_prompt_where_the_template_ends() -> None:
    tokenizer = byte_level()
    one = encoded("is it", "hello", tokenizer, prompt_form="chat")
    read, scored = tokens(one, tokenizer)
    assert scored == ["hello"]
    assert read[0] == "<s>" and "<s>" not in read[1:], "the template writes its own special tokens"
    assert plain(read) == "<s>[U]is it[A]"


def test_a_template_that_writes_the_date_gives_the_same_ids_every_day() -> None:
    tokenizer = byte_level()
    dated = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>")
    dated.chat_template = "{{ strftime_now('%d %b %Y') }}|{{ messages[0]['content'] }}|"
    one = encoded("q", "hello", dated, prompt_form="chat")
    assert plain(tokens(one, dated)[0]) == "1 January 2025|q|"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "candidate 'it' has no chat template; set prompt_form: raw"),
        (
            "{{ raise_exception('a system message, please') }}",
            "candidate 'it': its chat template fails .*please.*raw",
        ),
        ("{{ broken", "candidate 'it': its chat template fails"),
    ],
)
def test_without_a_usable_template_the_candidate_is_at_fault(template: str | None, expected: str) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level().backend_tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(CandidateError, match=expected):
        encode_one("q", "a", tokenizer, prompt_form="chat")


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(
        CandidateError, match=r"candidate 'it': its tokenizer .* no character offsets.*fast tokenizer"
    ):
        encode_one("q", "a", SimpleNamespace(is_fast=False))


# -- context --


def test_what_does_not_fit_is_reported_and_what_just_fits_is_not() -> None:
    tokenizer = byte_level()
    one = encode_one("hello", " the answer", tokenizer, context_length=3)
    assert isinstance(one, Unscored)
    assert one.reason.startswith(
        "4 tokens do not fit the context of 3; shorten it, or set too_long: truncate_prefix"
    )
    assert len(encoded("hello", " the answer", tokenizer, context_length=4).input_ids) == 4


@pytest.mark.parametrize("context_length", [3, 5, 8])
def test_truncation_keeps_leading_special_tokens_and_exactly_the_scored_ones(context_length: int) -> None:
    tokenizer = byte_level()
    prompt, solution = "hello world the answer is the sum", " the answer is the"
    options = {"window": Window(last_tokens=2)}
    whole = encoded(prompt, solution, tokenizer, **options)
    cut = encoded(prompt, solution, tokenizer, **options, context_length=context_length, truncate_prefix=True)
    assert len(cut.input_ids) == context_length
    assert cut.input_ids[0] == tokenizer.bos_token_id
    assert cut.input_ids[1:].tolist() == whole.input_ids[-(context_length - 1) :].tolist()
    assert tokens(cut, tokenizer)[1] == tokens(whole, tokenizer)[1] == ["Ġis", "Ġthe"]
    assert cut.n_bytes.tolist() == whole.n_bytes.tolist()
    assert cut.first_position == whole.first_position == 2


def test_truncation_keeps_the_start_token_that_a_template_wrote() -> None:
    tokenizer = byte_level()
    cut = encoded(
        "is it the answer", "hello", tokenizer, prompt_form="chat", context_length=4, truncate_prefix=True
    )
    assert tokens(cut, tokenizer) == (["<s>", "A", "]"], ["hello"])


def test_truncation_without_special_tokens_leaves_one_token_before_the_first_scored() -> None:
    tokenizer = byte_level(special="")
    cut = encoded("hello world", " the answer", tokenizer, context_length=3, truncate_prefix=True)
    assert tokens(cut, tokenizer) == (["Ġworld"], ["Ġthe", "Ġanswer"])


@pytest.mark.parametrize("special", ["<s> $A </s>", ""])
def test_scored_tokens_that_alone_do_not_fit_are_reported(special: str) -> None:
    one = encode_one(
        "hello", " the answer", byte_level(special=special), context_length=2, truncate_prefix=True
    )
    assert isinstance(one, Unscored)
    assert one.reason.startswith(
        "its 2 scored tokens alone do not fit the context of 2; choose a smaller window"
    )


def test_a_prompt_of_special_tokens_only_is_not_taken_for_more_than_it_is() -> None:
    # The solution begins with what looks like another leading special token.
    one = encode_one("", "<s><s>hello", byte_level(), context_length=3, truncate_prefix=True)
    assert isinstance(one, Unscored)
    assert one.reason.startswith("its 3 scored tokens alone")


# -- several at once --


def test_results_stand_in_the_order_of_the_trajectories() -> None:
    tokenizer = byte_level()
    trajectories = [Trajectory("t", str(i), "e", "hello", " the" * n) for i, n in enumerate([3, 1, 2])]
    results = encode(
        trajectories,
        tokenizer,
        candidate="it",
        prompt_form="raw",
        window=Window(),
        context_length=4,
        truncate_prefix=False,
    )
    assert [one.trajectory for one in results] == trajectories
    assert [isinstance(one, Encoded) for one in results] == [False, True, True]
    assert (
        encode(
            [],
            tokenizer,
            candidate="it",
            prompt_form="raw",
            window=Window(),
            context_length=4,
            truncate_prefix=False,
        )
        == []
    )
