"""A cache of all receipts of a lake in one file, `OUTPUT/receipts.parquet`.

An entry counts only while the unit's file has the size that it had when it was read, and while the entry has
its checksum; other receipts are read from the files. It may be deleted. With it a finished run of 100,000
units answers in seconds, and over an object store without a request for each of them.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from forecast import storage
from forecast.lake.files import DamagedUnit, Receipt, read_receipts
from forecast.plan import Plan, Unit

_FILE = "receipts.parquet"
_SCHEMA = pl.Schema(
    {"address": pl.String(), "bytes": pl.Int64(), "receipt": pl.String(), "checksum": pl.String()}
)
# Written anew when so many receipts were read from files: not for every few units of a run.
_WORTH_WRITING = 256


def registered_receipts(
    plan: Plan, units: Iterable[Unit]
) -> tuple[dict[str, Receipt], dict[str, DamagedUnit]]:
    """Receipts of units whose files exist, by address, in the order of `units`; and why others have none."""
    wanted = list(units)
    sizes, path = plan.sizes(), storage.join(plan.config.output, _FILE)
    entries = _read(path, {unit.address for unit in wanted})
    known = {address: receipt for address, (size, receipt) in entries.items() if sizes.get(address) == size}
    fresh, damaged = read_receipts(plan, [unit for unit in wanted if unit.address not in known])
    if len(fresh) >= _WORTH_WRITING:
        new = {address: (sizes[address], receipt) for address, receipt in fresh.items() if address in sizes}
        _write(path, {**_read(path, None), **new})
    found = {**known, **fresh}
    return {unit.address: found[unit.address] for unit in wanted if unit.address not in damaged}, damaged


def _read(path: str, addresses: set[str] | None) -> dict[str, tuple[int, Receipt]]:
    """Entries of these addresses, or all; none where the register is missing, damaged or of another kind."""
    try:
        # By pyarrow: on some damage polars panics, which no `except Exception` stops.
        table = pq.read_table(io.BytesIO(storage.read_bytes(path)), page_checksum_verification=True)
        table = table.replace_schema_metadata(None)
        table.validate(full=True)
        if table.column_names != _SCHEMA.names() or pl.DataFrame(table.slice(0, 0)).schema != _SCHEMA:
            return {}
        return {
            address: (size, Receipt.from_json(text))
            for address, size, text, checksum in pl.DataFrame(table).iter_rows()
            if (addresses is None or address in addresses) and checksum == _checksum(address, size, text)
        }
    except (OSError, ValueError, pa.ArrowException):
        return {}


def _write(path: str, entries: Mapping[str, tuple[int, Receipt]]) -> None:
    texts = [(address, size, receipt.to_json()) for address, (size, receipt) in entries.items()]
    rows = [(*entry, _checksum(*entry)) for entry in texts]
    buffer = io.BytesIO()
    table = pl.DataFrame(rows, schema=_SCHEMA, orient="row").to_arrow(compat_level=pl.CompatLevel.oldest())
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    storage.write_bytes(path, buffer.getvalue())


def _checksum(address: str, size: int, text: str) -> str:
    return hashlib.blake2b(f"{address} {size} {text}".encode(), digest_size=16).hexdigest()
