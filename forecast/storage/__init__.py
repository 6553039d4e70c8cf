"""Local paths and `s3://`, `gs://`, `az://`: whole-file reads and atomic writes, and the lease of a job."""

from forecast.storage.files import (
    bucket_problem,
    exists,
    file_size,
    filesystem,
    is_alive,
    is_remote,
    join,
    list_files,
    read_bytes,
    remove,
    resolve,
    sweep_temporaries,
    temporary_beside,
    try_out,
    write_bytes,
)
from forecast.storage.scratch import scratch

__all__ = [
    "bucket_problem",
    "exists",
    "file_size",
    "filesystem",
    "is_alive",
    "is_remote",
    "join",
    "list_files",
    "read_bytes",
    "remove",
    "resolve",
    "scratch",
    "sweep_temporaries",
    "temporary_beside",
    "try_out",
    "write_bytes",
]
