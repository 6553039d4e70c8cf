"""Whether more of a metric is better: given by an option, or known from the metric's name.

A name is cut into words at everything that is neither letter nor digit. The 80 proxies and their versions
over bytes have the directions of `forecast.proxies`. Of other names the words below decide, those for "lower
is better" first ("neg log likelihood" holds both). Some words say nothing by themselves: `margin` is a lead
over the expert's token here, where low is good, and elsewhere the right answer's lead, where high is good.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from forecast.errors import ConfigError, InputError, did_you_mean
from forecast.proxies.token_proxies import METRICS, PROXIES

Better = Literal["high", "low"]

_LOWER_WORDS = (
    "loss nll bpb bpc ppl perplexity error err crossentropy ce surprisal neg negative brier ece nats bits "
    "rmse mae mse ter wer cer bias toxicity stereotype hallucination distance latency"
)
_HIGHER_WORDS = (
    "accuracy acc score em f1 logprob logprobs loglikelihood likelihood prob probs probability recall "
    "precision mrr bleu chrf rouge rouge1 rouge2 rougel auc auroc mcc logit logits logp pass winrate"
)
_LOW = frozenset(_LOWER_WORDS.split())
_HIGH = frozenset(_HIGHER_WORDS.split()) | {f"top{k}" for k in range(1, 101)}
_LOW_PHRASES = ("cross entropy", "bits per", "nats per", "log loss", "wrong confidence", "likelihood diff")
_HIGH_PHRASES = ("exact match", "log prob", "reciprocal rank", "win rate", "pass at", "primary metric")
_GENERIC = frozenset({"loss", "nll", "crossentropy", "ce", "bpb", "bpc", "ppl", "perplexity"})


@dataclass(frozen=True)
class Direction:
    """Of one metric."""

    better: Better
    learned: bool = False  # direction unknown; `better` is then a convention, high

    @property
    def sign(self) -> int:
        """+1 where more is better."""
        return 1 if self.better == "high" else -1

    @property
    def words(self) -> str:
        """For records and tables."""
        return "learned" if self.learned else self.better


def known_direction(name: str) -> Direction | None:
    """What the name says; None where it says nothing."""
    if name in _PROXY_DIRECTIONS:
        return _PROXY_DIRECTIONS[name]
    words = _words(name)
    text = " ".join(words)
    if _LOW & set(words) or any(phrase in text for phrase in _LOW_PHRASES):
        return Direction("low")
    if _HIGH & set(words) or any(phrase in text for phrase in _HIGH_PHRASES):
        return Direction("high")
    return _PROXY_DIRECTIONS.get("_".join(words))


def directions(
    observed: Iterable[str], targets: Iterable[str], higher: Collection[str], lower: Collection[str]
) -> dict[str, Direction]:
    """Of every metric, by name.

    Raises:
        ConfigError: an option names a metric that no table has, or one twice.
        InputError: a metric whose direction is not known; says which option to give.
    """
    names = sorted({*observed, *targets})
    for option, given in (("--higher", higher), ("--lower", lower)):
        for name in given:
            if name not in names:
                raise ConfigError(f"{option} {name}: no table has this metric; {did_you_mean(name, names)}")
    if both := sorted(set(higher) & set(lower)):
        raise ConfigError(f"--higher and --lower both name {both[0]!r}; choose one")
    found: dict[str, Direction] = {}
    unknown = []
    for name in names:
        known = known_direction(name)
        if name in higher or name in lower:
            found[name] = Direction("high" if name in higher else "low")
        elif known is not None:
            found[name] = known
        else:
            unknown.append(name)
    if unknown:
        options = " ".join(f"--higher {_quoted(name)}" for name in unknown)
        raise InputError(
            f"is more of {', '.join(map(repr, unknown))} better or worse? The name does not say; "
            f"give {options} (or --lower)"
        )
    return found


def is_generic_loss(name: str) -> bool:
    """Whether a metric is a cross-entropy by its name, whatever its unit; of proxies the metric decides."""
    if name in _PROXY_DIRECTIONS:
        return name.removeprefix("byte_").partition("__")[0] == "cross_entropy"
    words = _words(name)
    text = " ".join(words)
    return bool(_GENERIC & set(words)) or "cross entropy" in text or "bits per" in text


def is_accuracy(name: str) -> bool:
    """Whether a metric is an accuracy by its name, and none of the proxies."""
    words = set(_words(name))
    return name not in _PROXY_DIRECTIONS and bool(words & {"accuracy", "acc", "em"}) and not words & _LOW


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # CrossEntropyLoss
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w./:-]+", name) else f'"{name}"'


def _of_proxy(better: str) -> Direction:
    return Direction("low" if better == "low" else "high", learned=better == "learned")


_PROXY_DIRECTIONS = {
    **{f"{prefix}{p.name}": _of_proxy(p.metric.better) for p in PROXIES for prefix in ("", "byte_")},
    **{m.name: _of_proxy(m.better) for m in METRICS if m.name != "margin"},
}
