"""Tokenizers from GGUF files give the ids of the folder, or are refused by the key's name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from gguf_files import (
    CONTROL,
    NORMAL,
    USER_DEFINED,
    File,
    of_tokenizer,
    save_byte_level,
    save_sentencepiece,
)
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from forecast.engines.gguf_tokenizer import tokenizer_of
from forecast.errors import CandidateError
from forecast.inputs.models.gguf import read_header

Change = Callable[[File], object]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
DIGITS = r"\p{N}"
TEXTS = (
    *tiny.SENTENCES,
    "She'll SAY: I'LL pay 1234567 for 2 bolts!!!\n\n\n  and\t\t100.50 more...\r\n",
    "  two spaces before, one behind ",
    "naïve Straße 東京 мир 🙂 x_1**2 == 0x1F;   }",
    "<s> in a text </s> and <unk>",
    "",
    " ",
    "\n",
)


def file_of(tokenizer: Any, pre: str = "gpt-2", **values: Any) -> File:
    """A GGUF file with this tokenizer and a tensor; values are keys of `tokenizer.ggml`, None removes one."""
    metadata = of_tokenizer(tokenizer, len(tokenizer), pre)
    file = File("llama", metadata, {"token_embd.weight": np.zeros((len(tokenizer), 4))})
    file.put({f"tokenizer.ggml.{key}": value for key, value in values.items()})
    return file


def read(file: File, tmp_path: Path) -> Any:
    return tokenizer_of(read_header(file.write(tmp_path / "m.gguf"), "it"))


def ids(tokenizer: Any, texts: tuple[str, ...] = TEXTS) -> list[list[int]]:
    return [tokenizer(text).input_ids for text in texts]


PRE = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion"), (GPT2,)),
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "dbrx", "smaug-bpe", "chatglm-bpe"), (LLAMA3,)
    ),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan"), (QWEN2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), (DIGITS, GPT2)),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
}


@pytest.mark.parametrize("pre", PRE)
def test_each_pre_tokenizer_cuts_words_as_the_folder_does(pre: str, tmp_path: Path) -> None:
    folder = save_byte_level(tmp_path / "folder", PRE[pre])
    found = read(file_of(folder, pre, add_bos_token=False), tmp_path)
    assert ids(found) == ids(folder)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm"])
def test_words_are_those_of_the_library_s_own_pre_tokenizers(pre: str, tmp_path: Path) -> None:
    folder = save_byte_level(tmp_path / "folder", PRE[pre])
    found = read(file_of(folder, pre), tmp_path)
    steps = [pre_tokenizers.Digits(individual_digits=True)] if pre == "smollm" else []
    own = [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    folder.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(own)
    assert ids(found) == ids(folder)


def test_digits_that_the_merges_join_are_not_taken_apart(tmp_path: Path) -> None:
    folder = save_byte_level(tmp_path / "folder", (GPT2,), texts=("12 12 13 13 12", *tiny.SENTENCES))
    assert folder.tokenize(" 12")[0] == "Ġ1"
    assert ids(read(file_of(folder, "starcoder"), tmp_path)) == ids(folder)


@pytest.mark.parametrize(
    ("pre", "said", "expected"),
    [
        ("gpt-2", None, False),
        ("gpt-2", True, True),
        ("gpt-2", False, False),
        ("qwen2", None, False),
        ("llama-bpe", None, True),
        ("llama-bpe", True, True),
        ("llama-bpe", False, False),
        ("tekken", None, True),
        ("smollm", None, False),
    ],
)
def test_a_byte_level_text_begins_with_bos_as_flag_or_pre_tokenizer_say(
    pre: str, said: bool | None, expected: bool, tmp_path: Path
) -> None:
    folder = save_byte_level(tmp_path / "folder", (GPT2,))
    found = read(file_of(folder, pre, add_bos_token=said), tmp_path)
    assert found("Say it").input_ids[0] == (0 if expected else folder("Say").input_ids[0])
    assert found("Say it", add_special_tokens=False).input_ids[0] != 0


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("bos", [True, False])
def test_a_sentencepiece_vocabulary_gives_the_ids_of_the_folder(
    bos: bool, prefix: bool, tmp_path: Path
) -> None:
    folder = save_sentencepiece(tmp_path / "folder", bos, prefix)
    said = {"add_bos_token": None if bos else False, "add_space_prefix": None if prefix else False}
    assert ids(read(file_of(folder, "default", **said), tmp_path)) == ids(folder)
    assert AutoTokenizer.from_pretrained(tmp_path / "folder")(" x").input_ids == folder(" x").input_ids


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_eos_is_appended_where_the_file_says_so(kind: str, tmp_path: Path) -> None:
    folder = save_byte_level(tmp_path, (GPT2,)) if kind == "gpt2" else save_sentencepiece(tmp_path)
    found = read(file_of(folder, add_bos_token=True, add_eos_token=True), tmp_path)
    assert ids(found)[0] == [
        found.bos_token_id,
        *folder(TEXTS[0], add_special_tokens=False).input_ids,
        found.eos_token_id,
    ]


def test_ids_of_special_tokens_are_those_of_llama_cpp_where_a_file_has_none(tmp_path: Path) -> None:
    folder = save_sentencepiece(tmp_path / "folder")
    none = dict.fromkeys(("bos_token_id", "eos_token_id", "unknown_token_id"))
    assert ids(read(file_of(folder, **none), tmp_path)) == ids(folder)


def test_tokens_are_found_whole_by_their_types(tmp_path: Path) -> None:
    folder = save_byte_level(tmp_path / "folder", (GPT2,))
    types = [NORMAL] * len(folder)
    types[0], types[1] = CONTROL, USER_DEFINED
    found = read(file_of(folder, token_type=types), tmp_path)
    assert found("a</s>b<s>").input_ids[1:] == [1, *folder("b").input_ids, 0]
    plain = [*folder.get_vocab().items()]
    word, number = next((token, n) for token, n in plain if token.isalpha() and len(token) > 3)
    types[number] = USER_DEFINED
    assert number in read(file_of(folder, token_type=types), tmp_path)(f"x{word}x").input_ids


def test_spaces_of_user_defined_tokens_are_spaces(tmp_path: Path) -> None:
    """As Gemma's files have them, whose vocabulary has runs of spaces."""
    folder = save_sentencepiece(tmp_path / "folder", prefix=False)
    file = file_of(folder, add_space_prefix=False)
    tokens, types = file.metadata["tokenizer.ggml.tokens"], file.metadata["tokenizer.ggml.token_type"]
    number = next(n for n, kind in enumerate(types) if kind == NORMAL and len(tokens[n]) > 3)
    tokens[number], types[number] = "   ", USER_DEFINED
    assert number in read(file, tmp_path)("a   b").input_ids


def test_a_word_that_is_an_entry_is_one_token_with_the_pre_tokenizer_of_llama_3(tmp_path: Path) -> None:
    folder = save_byte_level(tmp_path / "folder", (LLAMA3,))
    file = file_of(folder, "llama-bpe", add_bos_token=False)
    tokens = file.metadata["tokenizer.ggml.tokens"]
    merges = file.metadata["tokenizer.ggml.merges"]
    word = max((token for token in tokens if token.isascii() and token.isalpha()), key=len)
    last = next(merge for merge in merges if merge.replace(" ", "") == word)
    merges.remove(last)
    assert read(file, tmp_path)(word).input_ids == [tokens.index(word)]
    file.put({"tokenizer.ggml.pre": "qwen2"})
    assert len(read(file, tmp_path)(word).input_ids) > 1


def test_the_chat_template_is_the_file_s(tmp_path: Path) -> None:
    folder = save_byte_level(tmp_path / "folder", (GPT2,))
    file = file_of(folder)
    assert read(file, tmp_path).chat_template is None
    file.put({"tokenizer.chat_template": "{{ messages[0]['content'] }}!"})
    found = read(file, tmp_path)
    text = found.apply_chat_template([{"role": "user", "content": "Say"}], tokenize=False)
    assert text == "Say!"


def test_a_tokenizer_is_the_same_when_it_was_saved(tmp_path: Path) -> None:
    folder = save_sentencepiece(tmp_path / "folder", prefix=False)
    found = read(file_of(folder, add_space_prefix=False), tmp_path)
    found.save_pretrained(tmp_path / "saved")
    assert ids(AutoTokenizer.from_pretrained(tmp_path / "saved")) == ids(found) == ids(folder)


BYTE_LEVEL: dict[str, tuple[str, Any]] = {
    "unknown pre-tokenizer": ("pre", "of-tomorrow"),
    "no pre-tokenizer": ("pre", None),
    "another kind": ("model", "bert"),
    "unigram": ("model", "t5"),
    "no kind": ("model", None),
    "unknown key": ("something_new", 1),
    "flag that is text": ("add_bos_token", "false"),
    "flag that is a number": ("add_bos_token", 1),
    "space before the text": ("add_space_prefix", True),
    "separator": ("add_sep_token", True),
    "spaces removed": ("remove_extra_whitespaces", True),
    "characters mapped": ("precompiled_charsmap", [1, 2, 3]),
    "no tokens": ("tokens", None),
    "tokens that are numbers": ("tokens", [1, 2]),
    "too few types": ("token_type", [1, 1]),
    "no merges": ("merges", None),
    "merges of what is no token": ("merges", ["? !", "東 京"]),
    "merges without a space": ("merges", ["ab"]),
    "id beyond the tokens": ("eos_token_id", 10**6),
}


@pytest.mark.parametrize("case", BYTE_LEVEL)
def test_byte_level_keys_that_are_not_honoured_are_refused_by_name(case: str, tmp_path: Path) -> None:
    key, value = BYTE_LEVEL[case]
    file = file_of(save_byte_level(tmp_path / "folder", (GPT2,)), **{key: value})
    with pytest.raises(CandidateError, match=rf"m\.gguf: tokenizer\.ggml\.{key}") as caught:
        read(file, tmp_path)
    assert len(str(caught.value)) < 400


SENTENCEPIECE: dict[str, tuple[str, Any]] = {
    "no scores": ("scores", None),
    "too few scores": ("scores", [0.0]),
    "scores that are whole numbers": ("scores", [1, 2]),
    "merges of what is no token": ("merges", ["? !", "東 京"]),
    "spaces removed": ("remove_extra_whitespaces", True),
    "characters mapped": ("precompiled_charsmap", [1, 2, 3]),
    "unknown token beyond the tokens": ("unknown_token_id", 10**6),
}


@pytest.mark.parametrize("case", SENTENCEPIECE)
def test_sentencepiece_keys_that_are_not_honoured_are_refused_by_name(case: str, tmp_path: Path) -> None:
    key, value = SENTENCEPIECE[case]
    file = file_of(save_sentencepiece(tmp_path / "folder"), **{key: value})
    with pytest.raises(CandidateError, match=rf"m\.gguf: tokenizer\.ggml\.{key}"):
        read(file, tmp_path)


@pytest.mark.parametrize("key", ["tokenizer.huggingface.json", "tokenizer.rwkv.world"])
def test_other_descriptions_of_a_tokenizer_are_refused(key: str, tmp_path: Path) -> None:
    file = file_of(save_byte_level(tmp_path / "folder", (GPT2,)))
    file.put({key: "{}"})
    with pytest.raises(CandidateError, match=key):
        read(file, tmp_path)


def test_bos_that_is_asked_for_and_unknown_is_refused(tmp_path: Path) -> None:
    file = file_of(save_byte_level(tmp_path / "folder", (GPT2,)), add_bos_token=True, bos_token_id=None)
    with pytest.raises(CandidateError, match=r"tokenizer\.ggml\.bos_token_id is missing"):
        read(file, tmp_path)


def test_merges_beside_scores_are_those_of_the_folder(tmp_path: Path) -> None:
    folder = save_sentencepiece(tmp_path / "folder")
    merges = [" ".join(pair) for pair in json.loads(folder.backend_tokenizer.to_str())["model"]["merges"]]
    assert ids(read(file_of(folder, merges=merges), tmp_path)) == ids(folder)
    with pytest.raises(CandidateError, match=r"tokenizer\.ggml\.scores"):
        read(file_of(folder, merges=merges[::-1]), tmp_path)


def test_accents_are_composed_as_qwen_does(tmp_path: Path) -> None:
    found = read(file_of(save_byte_level(tmp_path / "folder", (QWEN2,)), "qwen2"), tmp_path)
    assert found("e\u0301").input_ids == found("\u00e9").input_ids


def test_special_tokens_of_phi_3_take_the_line_end_behind_them(tmp_path: Path) -> None:
    file = file_of(save_sentencepiece(tmp_path / "folder"))
    file.architecture = "phi3"
    found = read(file, tmp_path)
    assert found("</s>\nSay").input_ids == found("</s>Say").input_ids
    assert found("<s>\nSay").input_ids != found("<s>Say").input_ids


def test_scores_that_merges_cannot_follow_are_refused(tmp_path: Path) -> None:
    """With equal scores sentencepiece merges from the left, which merges in an order cannot say."""
    file = file_of(save_sentencepiece(tmp_path / "folder"))
    file.put({"tokenizer.ggml.scores": [0.0] * len(file.metadata["tokenizer.ggml.tokens"])})
    with pytest.raises(CandidateError, match=r"tokenizer\.ggml\.scores"):
        read(file, tmp_path)
