"""The published tables: sizes, conversion, and the decisions that their numbers hold."""

from pathlib import Path

import polars as pl
import pytest
from analysis.corpora.small_runs import QUICK

from forecast.analysis.corpora.compare import compare_corpora
from forecast.analysis.corpora.corpora_result import CorporaResult
from forecast.analysis.corpora.observations_from_file import read_tables
from forecast.errors import InputError
from forecast.inputs.published.datadecide import SIZES, convert

DATA = Path(__file__).parents[3] / "configs" / "data"
OBSERVED = DATA / "datadecide_olmes10_nll_per_char_final.csv"
TARGETS = DATA / "datadecide_target_1b_accuracy.csv"


def test_compute_of_the_sizes() -> None:
    def flops(size: str) -> float:
        return 6 * SIZES[size].parameters * SIZES[size].tokens()

    assert f"{flops('4M') / flops('1B'):.2e}" == "1.19e-05"
    assert f"{flops('150M') / flops('1B'):.2e}" == "1.94e-02"
    for size in SIZES.values():
        assert size.tokens() / size.parameters == pytest.approx(100, rel=0.2)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> CorporaResult:
    folder = tmp_path_factory.mktemp("datadecide")
    paths = [str(folder / name) for name in ("obs.csv", "targets.csv")]
    for path, source in zip(paths, (OBSERVED, TARGETS), strict=True):
        convert(str(source)).write_csv(path)
    return compare_corpora(read_tables(*paths), QUICK)


def test_both_tables_are_converted_whole() -> None:
    observed, targets = convert(str(OBSERVED)), convert(str(TARGETS))
    assert observed.columns == ["corpus", "size", "seed", "step", "task", "metric", "value"]
    assert (len(observed), len(targets)) == (1050, 275)
    assert observed["corpus"].n_unique() == 25 and set(targets["seed"]) == {"mean"}


def test_another_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pl.DataFrame({"corpus": ["a"], "size": ["4M"], "seed_inde": [1]}).write_csv(path)
    with pytest.raises(InputError, match="no column 'seed_index'; did you mean 'seed_inde'"):
        convert(str(path))


# Share of 300 pairs, by seed 0, 1, 2 and their mean: counted from the two tables in a few lines of numpy
# before this package was there.
KNOWN = {
    "4M": (0.563, 0.557, 0.623, 0.583),
    "6M": (0.380, 0.403, 0.497, 0.417),
    "16M": (0.693, 0.783, 0.747, 0.773),
    "60M": (0.787, 0.743, 0.780, 0.763),
    "150M": (0.777, 0.823, 0.790, 0.803),
    "530M": (0.880, 0.870, 0.820, 0.863),
    "1B": (0.893, 0.903, 0.900, 0.910),
}


@pytest.mark.parametrize("size", KNOWN)
def test_decision_accuracy_by_size_and_seed(found: CorporaResult, size: str) -> None:
    rows = {row.seed: row for row in found.rows if (row.size, row.task) == (size, "olmes_10_macro_avg")}
    for seed, known in zip(("0", "1", "2", "mean"), KNOWN[size], strict=True):
        assert rows[seed].decision_accuracy == pytest.approx(known, abs=5e-4)
        assert (rows[seed].n_pairs, rows[seed].n_ties, rows[seed].n_corpora) == (300, 0, 25)
    own = SIZES[size]
    fraction = own.parameters * own.tokens() / (SIZES["1B"].parameters * SIZES["1B"].tokens())
    assert rows["mean"].compute_fraction == pytest.approx(fraction)
    assert rows["mean"].cost_fraction == pytest.approx(3 * fraction)


def test_what_a_reader_must_know_is_said(found: CorporaResult) -> None:
    words = " ".join(found.warnings)
    assert "750M runs stop early" in words and "upper bound" in words
    assert "only their mean" in words and "1B is the target's own size" in words
    assert found.targets.main.task == "olmes_10_macro_avg"
    ways = [way for point in found.frontiers["olmes_10_macro_avg"] for way in (point.way, *point.equal)]
    assert ways and all(way.size not in ("1B", "6M", "8M") for way in ways)
