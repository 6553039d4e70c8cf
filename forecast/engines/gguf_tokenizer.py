"""A tokenizer made from a GGUF file by the file's own rules, which are llama.cpp's.

Each key that shapes ids is honoured or refused by name. What a file leaves out has the default that llama.cpp
gives it, by the kind of vocabulary and by the pre-tokenizer.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.tokenization_utils_base import generate_merges

from forecast.inputs.models.gguf import GgufHeader

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # token types, as in sentencepiece
_SPACE = "\u2581"
_KEY = "tokenizer.ggml."

# Pre-tokenizers beside those of transformers: regular expressions, each applied to the pieces that the one
# before it left; or the name of an equal one.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGITS, _ASCII_DIGITS = r"\p{N}", set("0123456789")
_SPLITS: dict[str, tuple[str, ...]] = {
    **{name: (split,) for name, split in GGUF_PRE_TOKENIZER_SPLITS.items()},
    **dict.fromkeys(("glm4", "chatglm-bpe"), (GGUF_PRE_TOKENIZER_SPLITS["llama-bpe"],)),
    **dict.fromkeys(("stablelm2", "hunyuan", "solar-open"), (GGUF_PRE_TOKENIZER_SPLITS["qwen2"],)),
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "gigachat", "exaone4"), (_GPT2,)),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), (_DIGITS, _GPT2)
    ),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9]{3}"),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9]{3}"),
}
_LLAMA3 = (
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    "jina-v5-nano",
)
# They begin with BOS, and a word that is an entry is one token, whatever the merges say.
_LIKE_LLAMA3 = {*_LLAMA3, "tekken"}

_COMPOSED = {"qwen2", "qwen35"}  # the tokenizers of that name compose accents with their letters first

_HONOURED = {
    *("model", "pre", "tokens", "token_type", "scores", "merges", "add_bos_token", "add_eos_token"),
    *("add_space_prefix", "bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id"),
    # Of no weight for text that is given: ends of turns, separators and gaps to be filled in.
    *("eot_token_id", "eom_token_id", "seperator_token_id", "mask_token_id", "cls_token_id"),
    *(f"{part}_token_id" for part in ("prefix", "suffix", "middle")),
    *(f"fim_{part}_token_id" for part in ("pre", "suf", "mid", "pad", "rep", "sep")),
    "token_type_count",
}
_NEUTRAL = {"add_sep_token": False, "remove_extra_whitespaces": False, "precompiled_charsmap": []}

# Words, numbers, punctuation, spaces, line ends and letters that no vocabulary has as one token.
_PROBE = (
    "Question: Mia's 12345 beads cost $3.75 each;  how many (in 2024) are left?\n\n\tdef f(x_1):\n"
    "    return x_1**2 + 0x1F  # naïve Straße, 東京 и мир 🙂 é\nI'LL SAY: don't!!! <b>HTML</b> ...\r\n\r\n 7 "
)


def tokenizer_of(header: GgufHeader) -> Any:
    """The tokenizer that a GGUF file describes.

    Raises:
        CandidateError: something in the file shapes ids and is not honoured; names the key.
    """
    _refuse_unknown_keys(header)
    kind = header.get(f"{_KEY}model", str, "")
    if kind not in ("gpt2", "llama"):
        raise header.refusal(f"{_KEY}model", "is a kind of vocabulary that is not read from GGUF files")
    tokens = header.get(f"{_KEY}tokens", list, [])
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise header.refusal(f"{_KEY}tokens", "is no list of tokens")
    types = _list_of(header, "token_type", int, [_NORMAL] * len(tokens), len(tokens))
    special = _special_ids(header, kind, len(tokens))
    if kind == "gpt2":
        backend = _byte_level(header, tokens)
    else:
        backend = _sentencepiece(header, tokens, types, special["unk"])
    _add_tokens(backend, tokens, types, header.architecture == "phi3" and kind == "llama")
    begin = header.get(f"{_KEY}add_bos_token", bool, kind == "llama" or _pre(header) in _LIKE_LLAMA3)
    end = header.get(f"{_KEY}add_eos_token", bool, False)
    around: list[str] = ["$A"]
    if begin:
        around.insert(0, _required(header, special, "bos", tokens))
    if end:
        around.append(_required(header, special, "eos", tokens))
    backend.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[(tokens[i], i) for i in special.values() if tokens[i] in around]
    )
    template = header.get("tokenizer.chat_template", str, "")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=template or None,
        **{f"{name}_token": tokens[i] for name, i in special.items()},
    )


def _refuse_unknown_keys(header: GgufHeader) -> None:
    for key, value in header.metadata.items():
        if not key.startswith("tokenizer.") or key.startswith("tokenizer.chat_template"):
            continue
        name = key.removeprefix(_KEY)
        if name not in _HONOURED and (name not in _NEUTRAL or value != _NEUTRAL[name]):
            raise header.refusal(key, "may change how text is cut into tokens and is not honoured")


def _list_of(header: GgufHeader, name: str, kind: type, default: list[Any], length: int) -> list[Any]:
    found = header.get(f"{_KEY}{name}", list, default)
    if len(found) != length or not all(type(entry) is kind for entry in found):
        raise header.refusal(f"{_KEY}{name}", f"is not one {kind.__name__} for each of {length} tokens")
    return found


def _pre(header: GgufHeader) -> str:
    return header.get(f"{_KEY}pre", str, "")


def _special_ids(header: GgufHeader, kind: str, n_tokens: int) -> dict[str, int]:
    """Ids of the special tokens by their names in transformers."""
    defaults = {"bos": 1, "eos": 2, "unknown": 0} if kind == "llama" else {}
    found = {}
    for name in ("bos", "eos", "unknown", "padding"):
        key = f"{_KEY}{name}_token_id"
        if key in header.metadata or name in defaults:
            number = header.get(key, int, defaults.get(name, 0))
            if not 0 <= number < n_tokens:
                raise header.refusal(key, f"is none of the {n_tokens} tokens")
            found[{"unknown": "unk", "padding": "pad"}.get(name, name)] = number
    return found


def _required(header: GgufHeader, special: dict[str, int], name: str, tokens: Sequence[str]) -> str:
    if name not in special:
        raise header.refusal(f"{_KEY}{name}_token_id", "is missing, and the file asks for that token")
    return tokens[special[name]]


def _ids(tokens: Iterable[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def _pairs(header: GgufHeader, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of the file, none where it has none."""
    merges = header.get(f"{_KEY}merges", list, [])
    pairs = [(left, right) for left, _, right in (str(merge).partition(" ") for merge in merges)]
    if not all({left, right, left + right} <= vocabulary.keys() for left, right in pairs):
        raise header.refusal(f"{_KEY}merges", "is no list of pairs of tokens that make a token")
    return pairs


def _byte_level(header: GgufHeader, tokens: list[str]) -> Tokenizer:
    """Byte-level BPE: words by regular expressions, merges in the order of the file."""
    pre = _pre(header)
    if pre not in _SPLITS:
        raise header.refusal(
            f"{_KEY}pre", "is a pre-tokenizer that is not known here" if pre else "is missing"
        )
    if header.get(f"{_KEY}add_space_prefix", bool, False):
        raise header.refusal(f"{_KEY}add_space_prefix", "is not honoured with byte-level vocabularies")
    vocabulary = _ids(tokens)
    pairs = _pairs(header, vocabulary)
    if not pairs:
        raise header.refusal(f"{_KEY}merges", "is missing")
    splits = _SPLITS[pre]
    # Merges with digits were learned from text in which digits are not apart, whatever the name says: the
    # vocabularies that llama.cpp means by these names have none.
    if splits[0] == _DIGITS and any(not _ASCII_DIGITS.isdisjoint(left + right) for left, right in pairs):
        splits = splits[1:]
    backend = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=pre in _LIKE_LLAMA3))
    steps = [pre_tokenizers.Split(Regex(split), behavior="isolated") for split in splits]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    if pre in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(header: GgufHeader, tokens: list[str], types: list[int], unknown: int) -> Tokenizer:
    """Sentencepiece's BPE: the pair that makes the token of the highest score is merged first."""
    scores = _list_of(header, "scores", float, [], len(tokens))
    prefix = header.get(f"{_KEY}add_space_prefix", bool, True)
    normal = {
        token: score for token, score, kind in zip(tokens, scores, types, strict=True) if kind == _NORMAL
    }
    vocabulary = _ids(tokens)
    merges = _pairs(header, vocabulary) or generate_merges({t: vocabulary[t] for t in normal}, normal)
    backend = Tokenizer(
        models.BPE(
            vocabulary,
            merges,
            unk_token=tokens[unknown],
            fuse_unk=True,
            byte_fallback=_BYTE in types,
        )
    )
    steps = [normalizers.Prepend(_SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    expected = _by_sentencepiece(tokens, scores, types, unknown, prefix)
    if backend.encode(_PROBE).ids != expected:
        raise header.refusal(f"{_KEY}scores", "give other tokens than merges made from them on a probe text")
    return backend


def _by_sentencepiece(
    tokens: list[str], scores: list[float], types: list[int], unknown: int, prefix: bool
) -> list[int]:
    """The ids of the probe text by sentencepiece itself, of the tokens that are made from pieces."""
    model = sentencepiece_model_pb2.ModelProto()
    model.trainer_spec.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = _BYTE in types
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    seen: set[str] = set()
    for number, (token, score, kind) in enumerate(zip(tokens, scores, types, strict=True)):
        # Sentencepiece refuses empty and doubled pieces and zeros, and knows exactly one unknown piece.
        is_made = kind in (_NORMAL, _BYTE) and token not in seen and token != "" and "\0" not in token
        piece = model.pieces.add()
        piece.piece = token if is_made else f"\1{number}"
        piece.type = _UNKNOWN if number == unknown else kind if is_made else _UNUSED
        piece.score = score
        seen.add(token)
    return list(sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString()).encode(_PROBE))


def _add_tokens(backend: Tokenizer, tokens: list[str], types: list[int], is_phi3: bool) -> None:
    """Tokens that are found in a text before it is cut: never made from pieces, nor cut into them.

    Those of Phi-3 take the spaces behind them away, which no key says.
    """
    for wanted, is_special in ((_CONTROL, True), (_USER_DEFINED, False)):
        found = [
            AddedToken(
                token,
                normalized=False,
                special=is_special,
                rstrip=is_phi3 and is_special and token not in ("<s>", "<unk>", "<|endoftext|>"),
            )
            for token, kind in zip(tokens, types, strict=True)
            if kind == wanted and token
        ]
        (backend.add_special_tokens if is_special else backend.add_tokens)(found)
