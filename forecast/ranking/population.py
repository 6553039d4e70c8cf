"""The population to be ranked: candidates with instance-level proxies and measured scores, read from the warehouse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from forecast.config import Config
from forecast.errors import NoDataError
from forecast.proxies import PROXIES

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TaskProxies:
    """Proxies of one task: per expert an array [candidates, instances, 80], instances in the order of their ids."""

    instances: tuple[str, ...]
    by_expert: Mapping[str, tuple[NDArray[np.int64], Array]]  # expert -> (indices into instances, values)

    def means(self, weights: Array | None = None) -> Array:
        """Mean over instances, then over experts: [candidates, 80]; or [b, candidates, 80] for weights [b, instances]."""
        single = weights is None
        w = np.ones((1, len(self.instances))) if weights is None else weights
        per_expert = []
        for index, values in self.by_expert.values():
            c, i, k = values.shape
            own = w[:, index]
            total = own.sum(axis=1, keepdims=True)
            with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no instance of an expert
                mean = own @ values.transpose(1, 0, 2).reshape(i, c * k) / total
            per_expert.append(mean.reshape(-1, c, k))
        result = np.nanmean(np.stack(per_expert), axis=0) if len(per_expert) > 1 else per_expert[0]
        return result[0] if single else result


@dataclass(frozen=True)
class Target:
    """Measured scores of one task over the candidates, NaN where there is none."""

    task: str
    metric: str
    values: Array  # [candidates]
    stderr: Array  # [candidates], NaN where unknown
    items: Array | None  # [candidates, items] of 0..1 where measured here, so that items can be resampled
    n_items: int | None


@dataclass(frozen=True)
class Population:
    """Everything a ranking needs; all arrays follow the order of `candidates`."""

    candidates: tuple[str, ...]
    families: tuple[str | None, ...]
    parameters: tuple[int | None, ...]
    proxies: Mapping[str, TaskProxies]
    targets: tuple[Target, ...]

    def tasks_for(self, target: str, configured: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Tasks whose proxies forecast a target: as configured, else the task of that name, else all."""
        if target in configured:
            return tuple(task for task in configured[target] if task in self.proxies)
        return (target,) if target in self.proxies else tuple(self.proxies)


def load_population(db: duckdb.DuckDBPyConnection, config: Config) -> Population:
    """Read the candidates that are complete.

    Where a task has several measured metrics, `config.ranking` names no winner: the first in alphabetical order of
    those measured directly, else of those imported, is the target.

    Raises:
        NoDataError: no proxies in the warehouse.
    """
    rows = db.execute(
        "SELECT candidate, candidate_id, family, parameters FROM candidates WHERE status = 'complete' ORDER BY rowid"
    ).fetchall()
    if not rows:
        raise NoDataError("the warehouse holds no complete candidate; run `forecast score` first")
    names = tuple(row[0] for row in rows)
    order = {row[1]: i for i, row in enumerate(rows)}  # two names of one model share its rows
    columns = ", ".join(p.name for p in PROXIES)
    proxies: dict[str, TaskProxies] = {}
    for (task,) in db.execute("SELECT DISTINCT task FROM instance_proxies ORDER BY task").fetchall():
        instances = tuple(
            r[0]
            for r in db.execute(
                "SELECT DISTINCT instance_id FROM instance_proxies WHERE task = ? ORDER BY instance_id", [task]
            ).fetchall()
        )
        place = {instance: i for i, instance in enumerate(instances)}
        experts: dict[str, tuple[NDArray[np.int64], Array]] = {}
        for (expert,) in db.execute(
            "SELECT DISTINCT expert FROM instance_proxies WHERE task = ? ORDER BY expert", [task]
        ).fetchall():
            table = db.execute(
                f"SELECT candidate_id, instance_id, {columns} FROM instance_proxies "
                "WHERE task = ? AND expert = ? ORDER BY candidate_id, instance_id",
                [task, expert],
            ).fetchnumpy()
            ids = table["candidate_id"]
            own = np.array([place[i] for i in table["instance_id"][ids == ids[0]]])
            values = np.stack([np.asarray(table[p.name], float) for p in PROXIES], axis=1)
            blocks = {cid: values[ids == cid] for cid in order}
            experts[expert] = (own, np.stack([blocks[row[1]] for row in rows]))
        proxies[task] = TaskProxies(instances, experts)
    return Population(names, tuple(r[2] for r in rows), tuple(r[3] for r in rows), proxies, _targets(db, names))


def _targets(db: duckdb.DuckDBPyConnection, names: tuple[str, ...]) -> tuple[Target, ...]:
    order = {name: i for i, name in enumerate(names)}
    chosen = db.execute(
        "SELECT task, arg_min(metric, (n_items IS NULL, metric)) FROM measured GROUP BY task ORDER BY task"
    ).fetchall()
    targets = []
    for task, metric in chosen:
        values, errors = np.full(len(names), np.nan), np.full(len(names), np.nan)
        n_items = None
        for candidate, value, stderr, n in db.execute(
            "SELECT candidate, value, stderr, n_items FROM measured WHERE task = ? AND metric = ?", [task, metric]
        ).fetchall():
            if candidate in order:
                values[order[candidate]] = value
                errors[order[candidate]] = np.nan if stderr is None else stderr
                n_items = n
        items = None
        if n_items is not None:
            found = db.execute(
                "SELECT candidate, list(correct ORDER BY instance_id) FROM choice_results "
                "JOIN candidates USING (candidate_id) WHERE task = ? GROUP BY candidate",
                [task],
            ).fetchall()
            items = np.stack([np.asarray(correct, float) for _, correct in sorted(found, key=lambda r: order[r[0]])])
        targets.append(Target(task, metric, values, errors, items, n_items))
    return tuple(targets)
