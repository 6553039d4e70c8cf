"""Which way a metric points, by its name or by an option."""

import pytest

from forecast.errors import ConfigError, InputError
from forecast.proxies.metric_direction import (
    directions,
    is_accuracy,
    is_generic_loss,
    known_direction,
)
from forecast.proxies.token_proxies import PROXIES


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("accuracy", "high"),
        ("acc_norm", "high"),
        ("acc_per_char", "high"),
        ("exact_match", "high"),
        ("primary_score", "high"),
        ("pass@1", "high"),
        ("correct_prob_per_char", "high"),
        ("logits_per_char_corr", "high"),
        ("top5_accuracy", "high"),
        ("reciprocal_rank", "high"),
        ("log_likelihood", "high"),
        ("nll", "low"),
        ("nll_per_char_olmes10", "low"),
        ("neg_log_likelihood", "low"),
        ("loss", "low"),
        ("CrossEntropyLoss", "low"),
        ("cross-entropy", "low"),
        ("cross_entropy", "low"),
        ("bits_per_byte", "low"),
        ("bpb", "low"),
        ("perplexity", "low"),
        ("error_rate", "low"),
        ("rank", "low"),
        ("wrong_confidence", "low"),
    ],
)
def test_names_that_say_it(name: str, better: str) -> None:
    found = known_direction(name)
    assert found is not None and found.better == better and not found.learned


@pytest.mark.parametrize("name", ["margin", "quality", "foo", "entropy_of_what"])
def test_names_that_do_not(name: str) -> None:
    assert known_direction(name) is None


def test_every_proxy_has_its_own_direction() -> None:
    for proxy in PROXIES:
        for name in (proxy.name, f"byte_{proxy.name}"):
            found = known_direction(name)
            assert found is not None
            assert found.learned == proxy.learned
            assert found.learned or found.better == proxy.metric.better


def test_options_decide_and_have_the_last_word() -> None:
    found = directions(
        ["foo", "accuracy", "entropy__uniform"], ["score"], ["foo"], ["accuracy", "entropy__uniform"]
    )
    assert {name: d.words for name, d in found.items()} == {
        "foo": "high",
        "accuracy": "low",
        "entropy__uniform": "low",
        "score": "high",
    }


def test_what_is_not_known_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"'foo', 'margin' better or worse.*--higher foo --higher margin"):
        directions(["foo", "margin", "nll"], ["accuracy"], [], [])
    with pytest.raises(ConfigError, match=r"--lower lose: no table has this metric; did you mean 'loss'"):
        directions(["loss"], ["accuracy"], [], ["lose"])
    with pytest.raises(ConfigError, match="both name 'loss'"):
        directions(["loss"], ["accuracy"], ["loss"], ["loss"])


def test_kinds() -> None:
    assert is_generic_loss("eval/CrossEntropyLoss") and is_generic_loss("bits_per_byte")
    assert not is_generic_loss("accuracy") and not is_generic_loss("rank__uniform")
    assert is_accuracy("acc_norm") and not is_accuracy("top5_accuracy__frequency")
