"""Cross-entropy in nats per token and bits per byte."""

import math

import polars as pl
import pytest

from forecast.baselines.crossentropy import cross_entropy_by_instance, cross_entropy_by_task
from forecast.errors import InputError


def rows(
    *instances: tuple[str, str, list[float | None], list[int | None]], task: str = "wiki"
) -> pl.DataFrame:
    """Rows of (candidate, instance, logprobs, bytes)."""
    return pl.DataFrame(
        [
            (candidate, task, "web", instance, position, n_bytes, logprob)
            for candidate, instance, logprobs, counts in instances
            for position, (logprob, n_bytes) in enumerate(zip(logprobs, counts, strict=True))
        ],
        schema={
            "candidate_id": pl.String,
            "task": pl.String,
            "expert": pl.String,
            "instance_id": pl.String,
            "position": pl.Int32,
            "n_bytes": pl.Int32,
            "logprob": pl.Float32,
        },
        orient="row",
    )


def test_nats_per_token_and_bits_per_byte() -> None:
    half = math.log(0.5)
    tokens = rows(("a", "1", [half, half, 2 * half], [1, 2, 5]), ("a", "2", [4 * half], [2]))
    one = cross_entropy_by_instance(tokens).row(0, named=True)
    assert one["n_tokens"] == 3 and one["n_bytes"] == 8
    assert one["nats_per_token"] == pytest.approx(4 / 3 * math.log(2))
    assert one["bits_per_byte"] == pytest.approx(4 / 8)
    task = cross_entropy_by_task(tokens).row(0, named=True)
    assert (task["n_instances"], task["n_tokens"], task["n_bytes"]) == (2, 4, 10)
    assert task["nats_per_token"] == pytest.approx(8 / 4 * math.log(2)), "pooled, not a mean of means"
    assert task["bits_per_byte"] == pytest.approx(8 / 10)


def test_bits_per_byte_do_not_depend_on_how_the_text_is_cut() -> None:
    coarse = rows(("a", "1", [-3.0, -1.5], [6, 2]))
    fine = rows(("b", "1", [-1.0, -2.0, -0.5, -1.0], [3, 3, 1, 1]))
    found = cross_entropy_by_task(pl.concat([coarse, fine]))
    assert found["bits_per_byte"][0] == pytest.approx(found["bits_per_byte"][1])
    assert found["nats_per_token"][0] == 2 * found["nats_per_token"][1]


def test_without_bytes_there_are_no_bits_per_byte() -> None:
    tokens = rows(
        ("a", "1", [-1.0, -1.0], [0, 0]), ("a", "2", [-1.0, -1.0], [3, None]), ("b", "1", [-1.0], [4])
    )
    found = cross_entropy_by_instance(tokens)
    assert found["bits_per_byte"].to_list()[:2] == [None, None]
    assert found["n_bytes"].to_list() == [0, None, 4]
    assert found["nats_per_token"].to_list() == [1.0, 1.0, 1.0]
    by_task = cross_entropy_by_task(tokens)
    assert by_task["bits_per_byte"][0] is None, "the bytes of a part would pass for those of the whole"
    assert by_task["bits_per_byte"][1] == pytest.approx(1 / math.log(2) / 4)


def test_the_order_of_rows_does_not_change_a_bit() -> None:
    values: list[float | None] = [-(10.0 ** ((7 * k) % 13 - 11)) for k in range(500)]  # 1e-11..10: sums round
    tokens = rows(("b", "2", values, [3] * 500), ("a", "1", values[::-1], [2] * 500))
    shuffled = tokens.sample(fraction=1, shuffle=True, seed=1)
    assert cross_entropy_by_instance(shuffled).equals(cross_entropy_by_instance(tokens))
    assert cross_entropy_by_task(shuffled).equals(cross_entropy_by_task(tokens))


@pytest.mark.parametrize("wrong", [None, 0.5, math.nan, -math.inf])
def test_a_logprob_that_is_none_is_refused(wrong: float | None) -> None:
    with pytest.raises(InputError, match=r"candidate_id 'a'.*instance_id '7', position 1: logprob is"):
        cross_entropy_by_task(rows(("a", "7", [-1.0, wrong], [1, 1])))


def test_no_rows_give_no_figures() -> None:
    assert cross_entropy_by_task(rows()).height == 0


def test_negative_bytes_are_refused() -> None:
    with pytest.raises(InputError, match="n_bytes is -1"):
        cross_entropy_by_task(rows(("a", "1", [-1.0], [-1])))
