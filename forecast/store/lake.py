"""The lake: one Parquet file per unit, one row per scored token; the truth that everything else is computed from.

The columns are `forecast.scoring.TOKEN_ROW`. What belongs to the unit as a whole (vocabulary size, unscored instances,
versions, time) is in the file's key-value metadata under the key `forecast`, as JSON: the receipt.
"""

import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import polars as pl
import pyarrow.parquet as pq

import forecast
from forecast import storage
from forecast.engines.base import EngineFacts
from forecast.errors import InputError
from forecast.plan import Failure, Plan, Unit
from forecast.scoring import ScoredUnit


@dataclass(frozen=True)
class Receipt:
    """What a unit's file says about itself; small enough to travel through the driver."""

    address: str
    candidate_id: str
    task: str
    rows: int
    tokens_read: int
    seconds: float
    vocab_size: int
    parameters: int
    unscored: tuple[dict[str, str], ...]  # instance_id, expert, reason
    device: str
    versions: dict[str, str]
    finished_at: float  # Unix time


def write_unit(plan_path: str, unit: Unit, scored: ScoredUnit, facts: EngineFacts) -> Receipt:
    """Write a unit's file at `plan_path`, whole or not at all; writing it twice is harmless."""
    receipt = Receipt(
        address=unit.address,
        candidate_id=unit.candidate.candidate_id,
        task=unit.shard.task,
        rows=scored.rows.height,
        tokens_read=scored.tokens_read,
        seconds=scored.seconds,
        vocab_size=facts.vocab_size,
        parameters=facts.parameters,
        unscored=tuple(
            {"instance_id": u.trajectory.instance_id, "expert": u.trajectory.expert, "reason": u.reason}
            for u in scored.unscored
        ),
        device=facts.device,
        versions={"forecast": forecast.__version__, **facts.versions},
        finished_at=time.time(),
    )
    table = scored.rows.to_arrow(compat_level=pl.CompatLevel.oldest())  # plain strings, which every reader knows
    table = table.replace_schema_metadata({b"forecast": json.dumps(asdict(receipt)).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    storage.write_bytes(plan_path, buffer.getvalue())
    return receipt


def read_receipt(path: str) -> Receipt:
    """The receipt of a unit's file, from its footer.

    Raises:
        InputError: the file is damaged or was not written by this program.
    """
    try:
        fs, inner = storage.filesystem(path)
        with fs.open_input_file(inner) as stream:
            metadata = pq.ParquetFile(stream).schema_arrow.metadata
        record = json.loads(metadata[b"forecast"])
    except Exception as error:  # every kind of damage has its own exception
        raise InputError(f"{path} is damaged ({error}); delete it and run the same command again") from error
    return Receipt(**{**record, "unscored": tuple(record["unscored"])})


def read_receipts(plan: Plan, units: Iterable[Unit]) -> dict[str, Receipt]:
    """Receipts by address, read in parallel.

    Raises:
        InputError: see `read_receipt`.
    """
    wanted: Sequence[Unit] = list(units)
    with ThreadPoolExecutor(max_workers=16) as pool:
        receipts = pool.map(lambda unit: read_receipt(plan.path(unit)), wanted)
        return {unit.address: receipt for unit, receipt in zip(wanted, receipts, strict=True)}


def unscored_failures(plan: Plan, receipts: Mapping[str, Receipt]) -> list[Failure]:
    """Instances that a candidate could not read, as failures."""
    return [
        Failure(
            "candidate",
            unit.candidate.name,
            f"candidate {unit.candidate.name!r}, task {unit.shard.task!r}, instance {entry['instance_id']!r}: {entry['reason']}",
            unit.shard.task,
            entry["instance_id"],
        )
        for unit in plan.units
        if unit.address in receipts
        for entry in receipts[unit.address].unscored
    ]
