"""The lake: one Parquet file per unit, one row per scored token; the truth that all else is computed from.

The columns are `forecast.scoring.TOKEN_ROW`. What belongs to the unit as a whole (vocabulary size, unscored
instances, versions, time) is in the file's key-value metadata under the key `forecast`, as JSON: the receipt.
It holds checksums of itself and of the rows, since Parquet has none of a footer; files of earlier versions
have none, and are read.
"""

import hashlib
import io
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict  # that of Python 3.11 is not for pydantic

import forecast
from forecast import storage
from forecast.engines.base import EngineFacts
from forecast.errors import InputError
from forecast.plan import Failure, Plan, Unit
from forecast.scoring import TOKEN_ROW, ScoredUnit
from forecast.storage.records import Count, UnixTime, checked, parsed_json

_BEFORE_TOP1 = [name for name in TOKEN_ROW if name != "top1_id"]  # columns until statistics version 2
_READERS = 16  # threads that wait for an object store


class UnscoredEntry(TypedDict):
    """An instance that could not be read."""

    instance_id: str
    expert: str
    reason: str


@dataclass(frozen=True)
class Receipt:
    """What a unit's file says about itself; small enough to travel through the driver."""

    address: str
    candidate_id: str
    task: str
    rows: Count
    tokens_read: Count
    seconds: FiniteFloat
    vocab_size: Annotated[int, Field(ge=2, lt=2**63)]
    parameters: int  # what a header promised; see `participation`
    unscored: tuple[UnscoredEntry, ...]
    device: str
    versions: dict[str, str]
    finished_at: UnixTime
    node: str | None = None  # of the cluster; None in files of earlier versions and outside Ray
    rows_checksum: str | None = None  # None in files of earlier versions
    input_embedding: int | None = None  # elements, 0 where it is the output head too; None: earlier versions

    def to_json(self) -> str:
        """As it is kept in files."""
        record = asdict(self)
        return json.dumps({**record, "checksum": _checksum(record)})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Receipt":
        """Raises: ValueError: the text is no receipt, or was changed."""
        record = parsed_json(text)
        claimed = record.pop("checksum", None) if isinstance(record, dict) else None
        if claimed not in (None, _checksum(record)):
            raise ValueError("its receipt is not as it was written")
        return checked(cls, record)


def write_unit(
    path: str, unit: Unit, scored: ScoredUnit, facts: EngineFacts, node: str | None = None
) -> Receipt:
    """Write a unit's file, whole or not at all; writing it twice is harmless."""
    receipt = Receipt(
        address=unit.address,
        candidate_id=unit.candidate.candidate_id,
        task=unit.shard.task,
        rows=scored.rows.height,
        tokens_read=scored.tokens_read,
        seconds=scored.seconds,
        vocab_size=facts.vocab_size,
        parameters=facts.parameters,
        input_embedding=facts.input_embedding,
        unscored=tuple(
            {"instance_id": u.trajectory.instance_id, "expert": u.trajectory.expert, "reason": u.reason}
            for u in scored.unscored
        ),
        device=facts.device,
        versions={"forecast": forecast.__version__, **facts.versions},
        finished_at=time.time(),
        node=node,
        rows_checksum=_rows_checksum(scored.rows),
    )
    table = scored.rows.to_arrow(compat_level=pl.CompatLevel.oldest())  # strings that every reader knows
    table = table.replace_schema_metadata({b"forecast": receipt.to_json().encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    storage.write_bytes(path, buffer.getvalue())
    return receipt


class DamagedUnit(InputError):
    """A file of the lake cannot be read, was not written by this program or stands where another belongs."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message, path)
        self.message, self.path = message, path

    def __str__(self) -> str:
        return self.message


def read_receipts(plan: Plan, units: Iterable[Unit]) -> tuple[dict[str, Receipt], dict[str, DamagedUnit]]:
    """By address: receipts from the files' footers, read in parallel, and why others have none."""
    wanted = list(units)
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda unit: _read_receipt(plan.path(unit), unit.address), wanted))
    by_address = list(zip((unit.address for unit in wanted), found, strict=True))
    return (
        {address: one for address, one in by_address if isinstance(one, Receipt)},
        {address: one for address, one in by_address if isinstance(one, DamagedUnit)},
    )


def _read_receipt(path: str, address: str) -> Receipt | DamagedUnit:
    try:
        return _receipt_of(path, address)
    except DamagedUnit as error:
        return error


def _receipt_of(path: str, address: str) -> Receipt:
    with _damage_named(path), _parquet(path) as file:
        receipt = Receipt.from_json(file.metadata.metadata[b"forecast"])
        if receipt.address != address:
            raise ValueError(f"it holds the unit {receipt.address}")
        return receipt


def read_rows(files: Iterable[tuple[str, int]]) -> pa.Table:
    """The token rows of several files, each given with the number of its rows, one after another.

    Raises:
        DamagedUnit: a file is damaged, has another number of rows or holds impossible values.
        InputError: a file was written by an earlier version.
    """
    listed = list(files)
    with ThreadPoolExecutor(_READERS) as pool:
        parts, receipts = zip(*pool.map(lambda part: _read_rows(*part), listed), strict=True)
    table = pa.concat_tables(parts)
    # Once for all files: looking at the few rows of each takes longer than reading them.
    rows = pl.DataFrame(table).with_row_index("row")
    if impossible := rows.filter(~_POSSIBLE.fill_null(False)).head(1).rows(named=True):
        row = impossible[0].pop("row")
        ends = itertools.accumulate(n_rows for _, n_rows in listed)
        path = next(path for (path, _), end in zip(listed, ends, strict=True) if row < end)
        with _damage_named(path):
            raise ValueError(f"impossible values: {impossible[0]}")
    for (path, _), part, receipt in zip(listed, parts, receipts, strict=True):
        with _damage_named(path):
            if receipt.rows_checksum not in (None, _rows_checksum(pl.DataFrame(part))):
                raise ValueError("its rows are not as they were written")
    return table


def _read_rows(path: str, n_rows: int) -> tuple[pa.Table, Receipt]:
    with _damage_named(path), _parquet(path) as file:
        receipt = Receipt.from_json(file.metadata.metadata[b"forecast"])
        table = file.read(use_threads=False).replace_schema_metadata(None)
        table.validate(full=True)  # polars takes text for UTF-8 unseen
        names = table.column_names  # polars panics where these are no text
        if names == _BEFORE_TOP1:
            raise InputError(
                f"{path} was written by an earlier version of forecast; run `forecast score` and "
                "`forecast aggregate` again"
            )
        if names != list(TOKEN_ROW) or pl.DataFrame(table.slice(0, 0)).schema != TOKEN_ROW:
            raise ValueError(f"its columns are {', '.join(names)}")
        if table.num_rows != n_rows:
            raise ValueError(f"it has {table.num_rows} rows, its receipt says {n_rows}")
        return table, receipt


def _checksum(record: object) -> str:
    return hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16).hexdigest()


def _rows_checksum(rows: pl.DataFrame) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for column in rows.sort("expert", "instance_id", "position").iter_columns():  # their order means nothing
        if column.dtype == pl.String:  # the same text for many rows
            runs = column.rle().struct.unnest()
            digest.update(json.dumps([column.name, runs["len"].to_list(), runs["value"].to_list()]).encode())
        else:
            digest.update(json.dumps([column.name, len(column)]).encode() + column.to_numpy().tobytes())
    return digest.hexdigest()


# NaN and infinite numbers are no possible values either: comparisons alone would let some of them pass.
_POSSIBLE = (
    pl.all_horizontal(pl.col("logprob", "top1_logprob", "entropy").is_finite())
    & (pl.col("logprob") <= 0)
    & (pl.col("top1_logprob") <= 0)
    & (pl.col("entropy") >= 0)
    & (pl.col("rank") >= 1)
    & (pl.col("ties") >= 0)
    & (pl.col("top1_id") >= 0)
    & (
        pl.when(pl.col("rank") > 1)
        .then(pl.col("top1_id") != pl.col("token_id"))
        .otherwise(pl.col("top1_id") <= pl.col("token_id"))  # lower ids may tie with it
    )
    & ((pl.col("rank") > 1) | (pl.col("ties") > 0) | (pl.col("top1_id") == pl.col("token_id")))
    & (pl.col("n_bytes") >= 0)
)


@contextmanager
def _parquet(path: str) -> Iterator[pq.ParquetFile]:
    fs, inner = storage.filesystem(path)
    with fs.open_input_file(inner) as stream:
        yield pq.ParquetFile(stream, page_checksum_verification=True)


@contextmanager
def _damage_named(path: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # every kind of damage has its own exception
        raise DamagedUnit(
            f"{path} cannot be read: {error}; if it is damaged, delete it and run `forecast score` again",
            path,
        ) from error


def damaged_failures(units: Iterable[Unit], damaged: Mapping[str, DamagedUnit]) -> list[Failure]:
    """Units whose files are damaged, as failures."""
    return [
        Failure("candidate", name, f"candidate {name!r}: {damaged[unit.address]}", unit.shard.task)
        for unit in units
        if unit.address in damaged
        for name in [unit.candidate.name]
    ]


def unscored_failures(units: Iterable[Unit], receipts: Mapping[str, Receipt]) -> list[Failure]:
    """Instances that a candidate could not read, as failures."""
    return [
        Failure(
            "candidate",
            unit.candidate.name,
            f"candidate {unit.candidate.name!r}, task {unit.shard.task!r}, "
            f"instance {entry['instance_id']!r}: {entry['reason']}",
            unit.shard.task,
            entry["instance_id"],
        )
        for unit in units
        if unit.address in receipts
        for entry in receipts[unit.address].unscored
    ]
