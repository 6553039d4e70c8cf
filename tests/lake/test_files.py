"""Files of the lake: what is written comes back, and nothing that cannot be is taken for truth."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakes import config_of, fill, solutions, tell

from forecast.errors import InputError
from forecast.lake.files import DamagedUnit, Receipt, read_receipts, read_rows, unscored_failures
from forecast.plan import Plan, Unit, make_plan
from forecast.scoring import TOKEN_ROW


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(
        config_of(tmp_path, {"t": solutions("a", "b", "c")}, {"m": "fake://1"}, shard_trajectories=2)
    )


def rewrite(plan: Plan, unit: Unit, rows: pl.DataFrame) -> None:
    """Replace a file's rows and keep its receipt."""
    metadata = pq.read_metadata(plan.path(unit)).metadata
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    pq.write_table(table.replace_schema_metadata({b"forecast": metadata[b"forecast"]}), plan.path(unit))


def rows_of(plan: Plan, unit: Unit) -> pl.DataFrame:
    receipts, damaged = read_receipts(plan, [unit])
    if damaged:
        raise damaged[unit.address]
    found = read_rows([(plan.path(unit), receipts[unit.address].rows)])
    return pl.DataFrame(found)


def test_rows_and_receipts_come_back(plan: Plan) -> None:
    def told(_: Unit, t: object) -> list[dict[str, float]] | str:
        return (
            "too long"
            if getattr(t, "instance_id", "") == "b"
            else [{"logprob": -0.25, "rank": 3}, {"n_bytes": 4}]
        )

    tell(plan, told, {"m": 77})
    receipts = read_receipts(plan, plan.units)[0]
    first, second = (receipts[unit.address] for unit in plan.units)
    assert (first.rows, second.rows) == (2, 2)
    assert first.unscored == ({"instance_id": "b", "expert": "human", "reason": "too long"},)
    assert (first.vocab_size, first.parameters, first.tokens_read, first.seconds) == (77, 1000, 10, 0.5)
    assert first.versions.keys() >= {"forecast"} and first.candidate_id == plan.candidates[0].candidate_id
    rows = pl.DataFrame(read_rows((plan.path(u), receipts[u.address].rows) for u in plan.units))
    assert rows.schema == TOKEN_ROW
    assert rows["instance_id"].to_list() == ["a", "a", "c", "c"]
    assert rows["logprob"].to_list() == [-0.25, -1.0] * 2
    assert rows["rank"].to_list() == [3, 2] * 2
    (failure,) = unscored_failures(plan.units, receipts)
    assert (failure.name, failure.task, failure.instance_id) == ("m", "t", "b")


def test_a_file_is_readable_by_anyone(plan: Plan) -> None:
    fill(plan)
    rows = pl.read_parquet(plan.path(plan.units[0]))
    assert rows.schema == TOKEN_ROW
    assert set(rows["candidate_id"]) == {plan.candidates[0].candidate_id}


def test_writing_a_unit_again_replaces_it(plan: Plan) -> None:
    fill(plan)
    before = rows_of(plan, plan.units[0])
    Path(plan.path(plan.units[0])).write_bytes(b"half")
    tell(plan, lambda *_: [{"logprob": -9.0}])
    assert rows_of(plan, plan.units[0])["logprob"].to_list() == [-9.0, -9.0]
    assert before.height > 2
    assert not list(Path(plan.folder("trajectories")).rglob(".*"))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("logprob", 0.001),
        ("logprob", math.nan),
        ("logprob", -math.inf),
        ("logprob", None),
        ("top1_logprob", 0.5),
        ("entropy", -0.1),
        ("entropy", math.inf),
        ("rank", 0),
        ("rank", None),
        ("ties", -1),
        ("top1_id", -1),
        ("top1_id", None),
        ("n_bytes", -1),
    ],
)
def test_what_no_candidate_can_have_said_is_an_error(plan: Plan, column: str, value: float | None) -> None:
    fill(plan)
    unit = plan.units[0]
    rows = rows_of(plan, unit)
    dtype = TOKEN_ROW[column]
    rewrite(
        plan,
        unit,
        rows.with_columns(
            pl.when(pl.col("position") == 1).then(pl.lit(value, dtype)).otherwise(column).alias(column)
        ),
    )
    with pytest.raises(InputError, match=f"{unit.address}.*impossible values"):
        rows_of(plan, unit)


def test_missing_rows_are_an_error(plan: Plan) -> None:
    fill(plan)
    rewrite(plan, plan.units[0], rows_of(plan, plan.units[0])[1:])
    with pytest.raises(InputError, match="its receipt says"):
        rows_of(plan, plan.units[0])


def test_a_missing_column_is_an_error(plan: Plan) -> None:
    fill(plan)
    rewrite(plan, plan.units[0], rows_of(plan, plan.units[0]).drop("entropy"))
    with pytest.raises(InputError, match=plan.units[0].address):
        rows_of(plan, plan.units[0])


def test_no_flipped_bit_goes_unnoticed(plan: Plan) -> None:
    """Decompression alone lets many through, as other numbers."""
    fill(plan)
    unit = plan.units[0]
    path = Path(plan.path(unit))
    whole, rows = path.read_bytes(), rows_of(plan, unit)
    noticed = 0
    for at in range(0, len(whole), 13):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            found = rows_of(plan, unit)
        except InputError:
            noticed += 1
        else:
            assert found.equals(rows), f"byte {at}"
    assert noticed > 20


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"vocab_size": 1000', b'"vocab_size": 9000'),
        (b'"parameters": 1000', b'"parameters": 9000'),
        (b'"device": "none"', b'"device": "some"'),
        (b'"unscored": []', b'"unscored": {}'),
    ],
)
def test_a_changed_receipt_is_refused(plan: Plan, old: bytes, new: bytes) -> None:
    tell(plan, lambda unit, t: [{}])
    unit = plan.units[0]
    expected = read_receipts(plan, [unit])[0][unit.address]
    metadata = dict(pq.read_metadata(plan.path(unit)).metadata)
    assert old in metadata[b"forecast"]
    table = pq.read_table(plan.path(unit))
    changed = metadata[b"forecast"].replace(old, new)
    pq.write_table(table.replace_schema_metadata({b"forecast": changed}), plan.path(unit))
    assert read_receipts(plan, [unit])[0] == {}
    (damage,) = read_receipts(plan, [unit])[1].values()
    assert re.search("not as it was written.*delete it and run `forecast score`", str(damage))
    assert damage.path == plan.path(unit)
    with pytest.raises(InputError, match="not as it was written"):  # also where a cache knew the receipt
        read_rows([(plan.path(unit), expected.rows)])


@pytest.mark.parametrize("column", ["logprob", "rank", "token_id", "instance_id", "position"])
def test_changed_rows_are_refused(plan: Plan, column: str) -> None:
    tell(plan, lambda unit, t: [{}, {"rank": 3}])
    unit = plan.units[0]
    rows = rows_of(plan, unit)
    other = pl.col(column) + (pl.lit("x") if rows.schema[column] == pl.String else 1)
    changed = rows.with_columns(other.cast(rows.schema[column]))
    if column == "logprob":
        changed = rows.with_columns(pl.col("logprob") - 1)  # still possible
    rewrite(plan, unit, changed)
    with pytest.raises(InputError, match="its rows are not as they were written"):
        rows_of(plan, unit)


def test_a_file_of_an_earlier_version_is_read(plan: Plan) -> None:
    tell(plan, lambda unit, t: [{}])
    unit = plan.units[0]
    rows, receipt = rows_of(plan, unit), read_receipts(plan, [unit])[0][unit.address]
    record = json.loads(receipt.to_json())
    del record["checksum"], record["rows_checksum"]
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    pq.write_table(table.replace_schema_metadata({b"forecast": json.dumps(record).encode()}), plan.path(unit))
    assert rows_of(plan, unit).equals(rows)
    assert read_receipts(plan, [unit])[0][unit.address] == replace(receipt, rows_checksum=None)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "x"},
        {"rows": -1},
        {"rows": 2**63},
        {"vocab_size": 1},
        {"vocab_size": 0},
        {"vocab_size": 10**30},
        {"seconds": "x"},
        {"seconds": math.nan},
        {"finished_at": 1e300},
        {"unscored": 3},
        {"unscored": [{"instance_id": "a"}]},
        {"versions": []},
        {"surprise": 1},
        {"address": None},
    ],
)
def test_receipts_of_other_types_are_refused(plan: Plan, change: dict[str, object]) -> None:
    tell(plan, lambda unit, t: [{}])
    unit = plan.units[0]
    record = json.loads(read_receipts(plan, [unit])[0][unit.address].to_json())
    del record["checksum"]
    with pytest.raises(ValueError, match=next(iter(change))):
        Receipt.from_json(json.dumps({**record, **change}))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "3", "[" * 100_000, '{"a":' * 9999])
def test_texts_that_are_no_receipts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Receipt.from_json(text)


def test_text_that_is_not_utf8_is_refused(plan: Plan) -> None:
    tell(plan, lambda unit, t: [{}])
    path, rows = plan.path(plan.units[0]), 2
    table = pq.read_table(path)
    offsets = pa.array([0, 1, 2], pa.int64()).buffers()[1]
    broken = pa.Array.from_buffers(pa.large_string(), rows, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    place = table.column_names.index("expert")
    pq.write_table(table.set_column(place, "expert", broken), path)
    with pytest.raises(InputError, match="UTF8"):
        read_rows([(path, rows)])


@pytest.mark.parametrize("rank", [{"rank": 1}, {"rank": 2}, {"rank": 1, "ties": 1}])
def test_a_first_choice_that_contradicts_the_rank_is_an_error(plan: Plan, rank: dict[str, int]) -> None:
    wrong = {1: 8, 2: 7}[rank["rank"]]
    tell(plan, lambda *_: [{"token_id": 7, "top1_id": wrong, **rank}])
    with pytest.raises(InputError, match="impossible values"):
        rows_of(plan, plan.units[0])


def test_rows_of_an_earlier_version_are_named_as_such_and_not_as_damaged(plan: Plan) -> None:
    fill(plan)
    unit = plan.units[0]
    rewrite(plan, unit, rows_of(plan, unit).drop("top1_id"))
    with pytest.raises(InputError, match="by an earlier version of forecast; run") as error:
        rows_of(plan, unit)
    assert not isinstance(error.value, DamagedUnit)
