"""The register of receipts: a cache that is believed only where the files are as they were."""

import random
from pathlib import Path

import polars as pl
import pytest
from lakes import config_of, fill, solutions, tell

from forecast.lake import receipt_cache
from forecast.lake.files import read_receipts
from forecast.lake.receipt_cache import registered_receipts
from forecast.plan import Plan, make_plan


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Six units, one trajectory each, all scored; a register is written from two on."""
    monkeypatch.setattr(receipt_cache, "_WORTH_WRITING", 2)
    made = make_plan(
        config_of(
            tmp_path,
            {"t": solutions("a", "b", "c")},
            {"m": "fake://1", "n": "fake://2"},
            shard_trajectories=1,
        )
    )
    fill(made)
    return made


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses of the units whose files were opened."""
    seen: list[str] = []

    def counted(plan: Plan, units: object) -> object:
        wanted = list(units)  # type: ignore[call-overload]
        seen.extend(unit.address for unit in wanted)
        return read_receipts(plan, wanted)

    monkeypatch.setattr(receipt_cache, "read_receipts", counted)
    return seen


def test_the_second_time_no_file_is_opened(plan: Plan, opened: list[str]) -> None:
    expected = read_receipts(plan, plan.units)
    assert registered_receipts(plan, plan.units) == expected
    assert len(opened) == 6
    assert registered_receipts(plan, plan.units) == expected
    assert list(registered_receipts(plan, reversed(plan.units))[0]) == [
        u.address for u in reversed(plan.units)
    ]
    assert len(opened) == 6
    # Those of another plan over the same output stay in it.
    assert registered_receipts(plan, plan.units[:2])[0] == {
        u.address: expected[0][u.address] for u in plan.units[:2]
    }
    assert len(opened) == 6


def test_what_was_rewritten_is_read_again(plan: Plan, opened: list[str]) -> None:
    registered_receipts(plan, plan.units)
    opened.clear()
    first = plan.units[0]
    tell(plan, lambda unit, _: [{}] * 9 if unit == first else [{}], {})
    found = registered_receipts(plan, plan.units)
    assert found == read_receipts(plan, plan.units)
    assert found[0][first.address].rows == 9
    assert first.address in opened


@pytest.mark.parametrize("damage", [b"", b"no parquet", b"PAR1", b"PAR1" + bytes(99) + b"PAR1"])
def test_a_damaged_register_costs_a_reading_and_no_more(plan: Plan, opened: list[str], damage: bytes) -> None:
    expected = registered_receipts(plan, plan.units)
    (Path(plan.config.output) / "receipts.parquet").write_bytes(damage)
    assert registered_receipts(plan, plan.units) == expected
    assert len(opened) == 12
    assert registered_receipts(plan, plan.units) == expected
    assert len(opened) == 12


@pytest.mark.parametrize(
    "change",
    [
        pl.col("receipt").str.replace(r'"vocab_size": \d+', '"vocab_size": 7'),
        pl.col("receipt").str.replace(r'"checksum": "\w+"', '"node": null'),
        pl.col("receipt").shift(1).fill_null("{}"),
        pl.col("address").reverse(),
        pl.lit("[" * 9999).alias("receipt"),
        pl.lit("").alias("checksum"),
    ],
)
def test_a_changed_entry_is_not_believed(plan: Plan, opened: list[str], change: pl.Expr) -> None:
    expected = registered_receipts(plan, plan.units)
    path = Path(plan.config.output) / "receipts.parquet"
    before = pl.read_parquet(path)
    changed = before.with_columns(change)
    assert not changed.equals(before)
    changed.write_parquet(path)
    assert registered_receipts(plan, plan.units) == expected
    assert len(opened) == 12, "all were read from their files again"


def test_a_register_of_an_earlier_version_is_replaced(plan: Plan, opened: list[str]) -> None:
    expected = registered_receipts(plan, plan.units)
    path = Path(plan.config.output) / "receipts.parquet"
    pl.read_parquet(path).drop("checksum").write_parquet(path)
    for _ in range(2):
        assert registered_receipts(plan, plan.units) == expected
    assert len(opened) == 12


def test_a_damaged_file_that_is_not_registered_is_named(plan: Plan) -> None:
    path = Path(plan.path(plan.units[3]))
    registered_receipts(plan, plan.units)
    path.write_bytes(path.read_bytes()[:-9])
    receipts, damaged = registered_receipts(plan, plan.units)
    assert damaged.keys() == {plan.units[3].address} and path.name in str(damaged[plan.units[3].address])
    assert receipts.keys() == {unit.address for unit in plan.units} - damaged.keys()


def test_no_flipped_byte_of_the_register_is_believed_or_ends_a_run(plan: Plan) -> None:
    expected, rng = registered_receipts(plan, plan.units), random.Random(5)
    path = Path(plan.config.output) / "receipts.parquet"
    whole = path.read_bytes()
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(damaged)
        assert registered_receipts(plan, plan.units) == expected
