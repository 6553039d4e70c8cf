"""Do tokenizers matter here? Tokens a byte, and the orders over tokens against those over bytes."""

from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from forecast.analysis.diagnostics.selection import PLACES, Selection
from forecast.analysis.stats.figures import Rho, rho_of
from forecast.proxies.byte_proxies import BITS_PER_BYTE, byte_name
from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.features import tied
from forecast.warehouse.population import Population

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tokenization:
    """How one candidate reads one task; None where its tokens stand for no bytes."""

    candidate: str
    task: str
    vocab_size: int
    bytes_per_token: float | None
    bits_per_byte: float | None  # mean over the instances, then the experts


@dataclass(frozen=True)
class TaskOrder:
    """One proxy's order of the candidates over tokens against its order over bytes."""

    task: str
    proxy: str
    rho: Rho


@dataclass(frozen=True)
class TargetRho:
    """A proxy over bytes against a measured target."""

    proxy: str
    target: str
    rho: Rho


@dataclass(frozen=True)
class TokenizerEffect:
    """Over tokens and over bytes."""

    cuttings: tuple[Tokenization, ...]
    readings: int  # ways in which the candidates tokenize the texts; 1: all alike
    orders: tuple[TaskOrder, ...]  # over tokens against over bytes
    targets: tuple[TargetRho, ...]  # of the proxies over bytes, and of bits per byte
    reason: str | None


def tokenizer_effect(
    db: duckdb.DuckDBPyConnection, population: Population, selection: Selection
) -> TokenizerEffect:
    """From the warehouse; a reason alone where it was made before there were proxies over bytes."""
    if not db.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'byte_task_proxies'").fetchall():
        reason = "the warehouse has no proxies over bytes; run `forecast aggregate` again"
        return TokenizerEffect((), 0, (), (), reason)
    tasks = tuple(population.proxies)
    names = [BITS_PER_BYTE, *(byte_name(PROXIES[PLACES[proxy]]) for proxy in selection.proxies)]
    rows = db.execute(
        "SELECT candidate_id, task, proxy, value FROM byte_task_proxies WHERE list_contains(?, proxy)",
        [names],
    ).fetchall()
    stored = {(identity, task, proxy): value for identity, task, proxy, value in rows}

    def over_bytes(task: str, name: str) -> Array:
        return tied(np.array([stored[own, task, name] for own in population.identities], float))

    means = {task: tied(population.proxies[task].means()) for task in tasks}
    orders = tuple(
        TaskOrder(
            task, proxy, rho_of(means[task][:, PLACES[proxy]], over_bytes(task, name), selection.confidence)
        )
        for task in tasks
        for proxy, name in zip(selection.proxies, names[1:], strict=True)
    )
    signs = [-1, *(PROXIES[PLACES[proxy]].sign for proxy in selection.proxies)]
    targets = tuple(
        TargetRho(
            name,
            question.target,
            rho_of(
                np.mean([_z(sign * over_bytes(task, name)) for task in question.tasks], axis=0),
                question.scores,
                selection.confidence,
            ),
        )
        for name, sign in zip(names, signs, strict=True)
        for question in selection.questions
        if question.target is not None
    )
    return TokenizerEffect(_cuttings(db, stored, population), population.tokenizations, orders, targets, None)


def _z(values: Array) -> Array:
    """Z-scores over the candidates, as features of several tasks are averaged."""
    spread = values.std()
    return values - values.mean() if not spread > 1e-12 else tied((values - values.mean()) / spread)


def _cuttings(
    db: duckdb.DuckDBPyConnection, stored: dict[tuple[str, str, str], float | None], population: Population
) -> tuple[Tokenization, ...]:
    rows = db.execute(
        "SELECT candidate_id, task, sum(n_bytes) / nullif(sum(n_tokens), 0) "
        "FROM byte_instance_proxies GROUP BY ALL"
    ).fetchall()
    lengths = {(identity, task): length for identity, task, length in rows}
    sizes = dict(db.execute("SELECT candidate_id, vocab_size FROM candidates").fetchall())
    return tuple(
        Tokenization(name, task, sizes[own], lengths[own, task] or None, stored[own, task, BITS_PER_BYTE])
        for name, own in zip(population.candidates, population.identities, strict=True)
        for task in population.proxies
    )
