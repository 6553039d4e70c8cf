"""A warehouse is built anew only where something that it follows from has changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forecast import storage
from forecast.plan import Failure, Plan
from forecast.storage.kept import keep, kept
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import warehouse_path

_NAME = "warehouse"


@dataclass(frozen=True)
class Built:
    """A serving file as it was published, and what had failed on the way to it."""

    stamp: tuple[int, int]
    failures: tuple[Failure, ...]


def build_unless_current(plan: Plan, failures: Sequence[Failure] = ()) -> list[Failure]:
    """As `build_warehouse`, but the file stays where it was built from the same.

    That is plan, failures, files of the lake, and program. The lake's files count by size and time of
    modification. In an object store the warehouse is always built.
    """
    path = warehouse_path(plan.config.output)
    if storage.is_remote(path):
        return build_warehouse(plan, failures)
    files = {address: _stamp(plan.path(unit)) for address, unit in {u.address: u for u in plan.units}.items()}
    inputs = (plan, tuple(failures), files)
    found = kept(plan.config.output, _NAME, Built, inputs, lambda note: None)
    if found is not None and _stamp(path) == found.stamp:
        return list(found.failures)
    failed = build_warehouse(plan, failures)
    if (stamp := _stamp(path)) is not None:
        keep(plan.config.output, _NAME, Built, inputs, Built(stamp, tuple(failed)))
    return failed


def _stamp(path: str) -> tuple[int, int] | None:
    """Bytes and time of modification in ns; None where there is no such file."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
