"""What the diagnostics of a run read: the warehouse's population, and the token rows behind it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl

from forecast import storage
from forecast.config.schema import Config
from forecast.errors import InputError
from forecast.lake.files import read_rows
from forecast.warehouse.population import Population, load_population

_KEY = ["task", "expert", "instance_id"]


@dataclass(frozen=True)
class Member:
    """A candidate of the population."""

    name: str
    candidate_id: str
    dtype: str
    prompt_form: str
    vocab_size: int
    model: str  # what is the same for one model in several prompt forms: source, revision, variant, dtype


@dataclass(frozen=True)
class TokenGroup:
    """The token rows of one model and task."""

    names: tuple[str, ...]  # that the model has in the configuration
    dtype: str
    vocab_size: int
    task: str
    files: tuple[tuple[str, int], ...]  # paths with their numbers of rows


@dataclass(frozen=True)
class Material:
    """A run as its warehouse knows it."""

    population: Population
    members: tuple[Member, ...]  # in the order of the population
    groups: tuple[TokenGroup, ...]  # each model once, also where two names stand for it
    dropped: pl.DataFrame  # task, expert, instance_id that some candidate could not read
    longest: int  # scored tokens of the longest solution
    config: Config  # as it is now, for the trajectories' texts

    def tokens(self) -> Iterator[tuple[TokenGroup, pl.DataFrame]]:
        """Token rows of every candidate and task that count, one group in memory at a time.

        Raises:
            InputError: a file of the lake is gone or damaged; names it.
        """
        for group in self.groups:
            rows = pl.DataFrame(read_rows(group.files))
            yield group, rows.join(self.dropped, on=_KEY, how="anti")


def load_material(db: duckdb.DuckDBPyConnection, config: Config) -> Material:
    """Read an open warehouse.

    Raises:
        NoDataError: no proxies in it.
        InputError: it does not name the files that it was made from.
    """
    population = load_population(db)
    try:
        members = _members(db)
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"the warehouse of {config.output} does not hold the configuration that it was made from; "
            "run `forecast aggregate` again"
        ) from error
    groups: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for candidate_id, task, address, rows in db.execute(
        "SELECT DISTINCT c.candidate_id, u.task, u.address, u.rows FROM units u JOIN candidates c "
        "USING (candidate) WHERE u.kind = 'trajectories' ORDER BY ALL"
    ).fetchall():
        path = storage.join(config.output, "lake", candidate_id, f"{address}.parquet")
        groups.setdefault((candidate_id, task), []).append((path, rows))
    if {key[0] for key in groups} != {m.candidate_id for m in members}:
        raise InputError(
            f"the warehouse of {config.output} does not name all files that it was made from; "
            "run `forecast aggregate` again"
        )
    dropped = db.execute(
        "SELECT DISTINCT task, expert, instance_id FROM unscored WHERE kind = 'trajectories'"
    ).fetchall()
    ((longest,),) = db.execute("SELECT max(n_tokens) FROM instance_proxies").fetchall()
    return Material(
        population=population,
        members=members,
        groups=tuple(
            _group([m for m in members if m.candidate_id == candidate_id], task, files)
            for (candidate_id, task), files in groups.items()
        ),
        dropped=pl.DataFrame(dropped, schema=dict.fromkeys(_KEY, pl.String), orient="row"),
        longest=longest,
        config=config,
    )


def _group(names: Sequence[Member], task: str, files: Sequence[tuple[str, int]]) -> TokenGroup:
    first = names[0]
    return TokenGroup(tuple(m.name for m in names), first.dtype, first.vocab_size, task, tuple(files))


def _members(db: duckdb.DuckDBPyConnection) -> tuple[Member, ...]:
    (stored,) = db.execute("SELECT config FROM run").fetchall()
    settings: dict[str, dict[str, Any]] = {c["name"]: c for c in json.loads(stored[0])["candidates"]}
    rows = db.execute(
        "SELECT candidate, candidate_id, dtype, prompt_form, vocab_size FROM candidates "
        "WHERE status = 'complete' ORDER BY place"
    ).fetchall()
    variant = ("source", "revision", "quantize", "drop_layers", "vocab_size", "context_length")
    found = []
    for name, identity, dtype, form, vocab_size in rows:
        model = json.dumps([dtype, *(settings[name][key] for key in variant)])
        found.append(Member(name, identity, dtype, form, vocab_size, model))
    return tuple(found)
