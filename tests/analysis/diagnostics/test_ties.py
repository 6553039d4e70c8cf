import polars as pl
import pytest

from forecast.analysis.diagnostics.ties import tie_share


def share(*tokens: tuple[int, int]):
    rows = pl.DataFrame(list(tokens), schema={"rank": pl.Int32, "ties": pl.Int32}, orient="row")
    return tie_share("it", "bfloat16", "t", rows)


def test_tie_share_of_known_tokens() -> None:
    # Places 1, 1..2, 2..5, 6..9: the last is never among the first five.
    found = share((1, 0), (1, 1), (2, 3), (6, 3))
    assert (found.tokens, found.tied_share) == (4, 0.75)
    assert found.topk_best == {1: 0.5, 2: 0.75, 3: 0.75, 5: 0.75}
    assert found.topk_worst == {1: 0.25, 2: 0.5, 3: 0.5, 5: 0.75}
    assert found.topk_uncertain == {1: 0.25, 2: 0.25, 3: 0.25, 5: 0.0}
    assert (found.mean_rank_best, found.mean_rank_worst) == (2.5, 4.25)


def test_ties_everywhere_and_nowhere() -> None:
    everywhere = share(*[(1, 49_151)] * 3)
    assert everywhere.tied_share == 1.0 and everywhere.topk_uncertain == dict.fromkeys((1, 2, 3, 5), 1.0)
    assert everywhere.mean_rank_worst == 49_152
    nowhere = share((7, 0))
    assert nowhere.tied_share == 0.0 and nowhere.mean_rank_best == nowhere.mean_rank_worst == 7
    assert nowhere.topk_best == nowhere.topk_worst


def test_ranks_near_the_end_of_32_bits_do_not_overflow() -> None:
    assert share((2_000_000_000, 2_000_000_000)).mean_rank_worst == pytest.approx(4e9)
