"""The population to be ranked: candidates with their proxies by instance and their measured scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import duckdb
import numpy as np
from numpy.typing import NDArray

from forecast.errors import NoDataError, shortened
from forecast.proxies.byte_proxies import BITS_PER_BYTE, byte_name
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.warehouse.run_name import RUN_COLUMNS, run_name

Array = NDArray[np.float64]
# What a proxy's mean is over; auto: bytes where the candidates tokenize the texts in different ways.
Over = Literal["auto", "tokens", "bytes"]


@dataclass(frozen=True)
class ExpertProxies:
    """Proxies of one expert's solutions to the instances of a task."""

    index: NDArray[np.int64]  # [instances of this expert], places in the task's list of instances
    values: Array  # [candidates, instances of this expert, 80]


@dataclass(frozen=True)
class TaskProxies:
    """Proxies of one task."""

    instances: tuple[str, ...]
    experts: Mapping[str, ExpertProxies]

    def only(self, columns: Sequence[int]) -> "TaskProxies":
        """With these proxies alone."""
        return TaskProxies(
            self.instances,
            {
                name: ExpertProxies(own.index, own.values[:, :, list(columns)])
                for name, own in self.experts.items()
            },
        )

    def means(self, weights: Array | None = None) -> Array:
        """Mean over instances, then over experts: [candidates, 80].

        Args:
            weights: [b, instances], how often each instance counts; the solutions of all experts to one
                instance go together. Gives [b, candidates, 80]; an expert none of whose instances counts is
                left out.
        """
        w = np.ones((1, len(self.instances))) if weights is None else weights
        per_expert = []
        for expert in self.experts.values():
            c, i, k = expert.values.shape
            own = w[:, expert.index]
            sums = own @ expert.values.transpose(1, 0, 2).reshape(i, c * k)
            with np.errstate(invalid="ignore"):  # 0 / 0: none of its instances counts
                per_expert.append((sums / own.sum(axis=1, keepdims=True)).reshape(-1, c, k))
        result: Array = np.nanmean(np.stack(per_expert), axis=0) if len(per_expert) > 1 else per_expert[0]
        return result[0] if weights is None else result


@dataclass(frozen=True)
class Target:
    """Measured scores of one task over the candidates, NaN where there is none."""

    task: str
    metric: str
    values: Array  # [candidates]
    stderr: Array  # [candidates], NaN where unknown
    items: Array | None  # [candidates, items] of 0..1 where measured here, so that items can be resampled
    other_metrics: tuple[str, ...] = ()  # measured too, not used

    @property
    def n_items(self) -> int | None:
        """Questions that the scores are means over; None for imported scores."""
        return None if self.items is None else self.items.shape[1]


@dataclass(frozen=True)
class Population:
    """Everything a ranking needs; all arrays follow the order of `candidates`."""

    candidates: tuple[str, ...]
    identities: tuple[str, ...]  # candidate_id: equal for two names of one model
    families: tuple[str | None, ...]
    parameters: tuple[int | None, ...]
    proxies: Mapping[str, TaskProxies]  # by task
    targets: tuple[Target, ...]
    training_flops: tuple[float | None, ...]  # 6 N D; of a mixture of experts N are the active parameters
    generic: Mapping[str, Array] = field(default_factory=dict)  # by unit, cross-entropy on generic text [C]
    rbridge: Mapping[str, Array] = field(default_factory=dict)  # by task [C]; nats, NaN where there is none
    over: Literal["tokens", "bytes"] = "tokens"  # what the proxies are means over
    tokenizations: int = 1  # ways in which the candidates tokenize the texts
    steps: tuple[int | None, ...] = ()  # of checkpoints of training runs; (): not known of any candidate
    runs: tuple[str | None, ...] = ()  # whose checkpoints they are

    @property
    def one_run(self) -> str | None:
        """The training run whose checkpoints all candidates are; None where they are not."""
        runs = set(self.runs)
        return next(iter(runs)) if len(runs) == 1 and len(self.candidates) > 1 else None

    def tasks_for(self, target: str, configured: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Tasks whose proxies forecast a target: as configured, else the task of that name, else all."""
        if target in configured:
            return tuple(task for task in configured[target] if task in self.proxies)
        return (target,) if target in self.proxies else tuple(self.proxies)


def load_population(db: duckdb.DuckDBPyConnection, over: Over = "tokens") -> Population:
    """Read the candidates that are complete, in the order of the configuration.

    Means over tokens do not compare between tokenizers: `auto` takes bytes where there are several.

    Over bytes (`forecast.proxies.byte_proxies`) an instance that stands for no bytes is left out.

    Where a task is measured in several ways, direct evaluation is the target, else the metric that the most
    candidates have, else the first in alphabetical order.

    Raises:
        NoDataError: no proxies in the warehouse, a task without any bytes, or contents that no run leaves.
    """
    try:
        return _population(db, over)
    except (ValueError, TypeError, LookupError, AssertionError, RecursionError) as error:
        raise NoDataError(
            "the tables of this warehouse contradict each other "
            f"({type(error).__name__}: {shortened(error, str)}); run `forecast aggregate` to build it again"
        ) from error


def _population(db: duckdb.DuckDBPyConnection, over: Over) -> Population:
    rows = db.execute(
        "SELECT candidate, candidate_id, family, parameters, "
        "6.0 * coalesce(active_parameters, parameters - coalesce(input_embedding, 0)) "
        f"* nullif(training_tokens, 0), step, {', '.join(RUN_COLUMNS)} FROM candidates "
        "WHERE status = 'complete' ORDER BY place"
    ).fetchall()
    names, ids, families, parameters, flops, steps, *of_run = (
        zip(*rows, strict=True) if rows else ((),) * (6 + len(RUN_COLUMNS))
    )
    runs = tuple(
        None if step is None else run_name(parts) for step, *parts in zip(steps, *of_run, strict=True)
    )
    read = [t for (t,) in db.execute("SELECT DISTINCT task FROM instance_proxies ORDER BY task").fetchall()]
    generic = _generic_tasks(db)
    tasks = [task for task in read if task not in generic]
    if not tasks:
        raise NoDataError(
            "no solution was read by every candidate, so there is nothing to rank by; "
            "`forecast aggregate` lists what could not be read"
        )
    ways = tokenizations(db, ids)
    unit: Literal["tokens", "bytes"] = (
        "bytes" if over == "bytes" or (over == "auto" and ways > 1) else "tokens"
    )
    try:
        proxies = {task: _task_proxies(db, task, ids, unit) for task in tasks}
    except NoDataError:
        if over != "auto" or unit == "tokens":
            raise
        unit = "tokens"  # with a warning of the ranking, since these means do not compare
        proxies = {task: _task_proxies(db, task, ids, unit) for task in tasks}
    texts = _generic(db, ids, [task for task in read if task in generic])
    targets, rbridge = _targets(db, names), _rbridge(db, ids)
    return Population(
        names, ids, families, parameters, proxies, targets, flops, texts, rbridge, unit, ways, steps, runs
    )


def tokenizations(db: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> int:
    """How many different lists of token and byte counts, instance by instance, these candidates have."""
    ((n,),) = db.execute(
        "SELECT count(DISTINCT cuts) FROM (SELECT candidate_id, "
        "list([n_tokens, n_bytes] ORDER BY task, expert, instance_id) AS cuts "
        "FROM instance_proxies WHERE list_contains(?, candidate_id) GROUP BY candidate_id)",
        [list(ids)],
    ).fetchall()
    return int(n)


def _generic_tasks(db: duckdb.DuckDBPyConnection) -> set[str]:
    return {
        source["task"]
        for (config,) in db.execute("SELECT config FROM run").fetchall()  # one row; none in tables made up
        for source in json.loads(config)["trajectories"]
        if source.get("generic")
    }


def _generic(db: duckdb.DuckDBPyConnection, ids: Sequence[str], tasks: Sequence[str]) -> dict[str, Array]:
    """Pooled over all tokens, or bytes, of the generic texts: a long text counts more than a short one."""
    if not tasks:
        return {}
    found = {}
    for unit, rate in (
        ("nats per token", f"sum({PLAIN_CROSS_ENTROPY} * n_tokens) / sum(n_tokens) FROM instance_proxies"),
        ("bits per byte", "sum(nats) / ln(2) / nullif(sum(n_bytes), 0) FROM bits_per_byte"),
    ):
        query = f"SELECT candidate_id, {rate} WHERE list_contains(?, task) GROUP BY candidate_id"
        own = dict(db.execute(query, [list(tasks)]).fetchall())
        found[unit] = np.array([np.nan if own[name] is None else own[name] for name in ids], float)
    return found


def _rbridge(db: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> dict[str, Array]:
    """Mean over instances, then over experts."""
    found: dict[str, dict[str, float]] = {}
    for task, candidate_id, value in db.execute(
        "SELECT task, candidate_id, avg(own) FROM (SELECT task, candidate_id, expert, avg(rbridge) AS own "
        "FROM rbridge GROUP BY ALL) GROUP BY ALL ORDER BY task"
    ).fetchall():
        found.setdefault(task, {})[candidate_id] = value
    return {task: np.array([own.get(name, np.nan) for name in ids]) for task, own in found.items()}


def _task_proxies(db: duckdb.DuckDBPyConnection, task: str, ids: Sequence[str], over: Over) -> TaskProxies:
    """`ids`: of the candidates in order; two names of one model have the same id and share its rows."""
    source, columns = "instance_proxies", ", ".join(proxy.name for proxy in PROXIES)
    if over == "bytes":
        columns = ", ".join(f"{byte_name(proxy)} AS {proxy.name}" for proxy in PROXIES)
        source = (
            "byte_instance_proxies ANTI JOIN (SELECT DISTINCT task, expert, instance_id "
            f"FROM byte_instance_proxies WHERE {BITS_PER_BYTE} IS NULL) USING (task, expert, instance_id)"
        )
    table = db.execute(
        f"SELECT candidate_id, expert, instance_id, {columns} "
        f"FROM {source} WHERE task = ? ORDER BY expert, candidate_id, instance_id",
        [task],
    ).fetchnumpy()
    if not len(table["expert"]):
        raise NoDataError(f"{task}: no instance stands for any bytes, so there are no proxies over bytes")
    instances, places = np.unique(table["instance_id"].astype(str), return_inverse=True)
    values = np.stack([np.asarray(table[p.name], float) for p in PROXIES], axis=1)
    known = sorted(set(ids))
    order = [known.index(candidate_id) for candidate_id in ids]
    experts = {}
    for expert in dict.fromkeys(table["expert"]):
        own = table["expert"] == expert
        index = places[own].reshape(len(known), -1)
        assert (index == index[0]).all(), "the warehouse keeps the instances that every candidate has read"
        blocks = values[own].reshape(len(known), -1, len(PROXIES))
        experts[expert] = ExpertProxies(index[0], blocks[order])
    return TaskProxies(tuple(map(str, instances)), experts)


def _targets(db: duckdb.DuckDBPyConnection, names: Sequence[str]) -> tuple[Target, ...]:
    order = {name: i for i, name in enumerate(names)}
    scores: dict[str, dict[tuple[bool, str], dict[str, tuple[float, float | None]]]] = {}
    for candidate, task, metric, value, stderr, imported in db.execute(
        "SELECT candidate, task, metric, value, stderr, n_items IS NULL FROM measured ORDER BY task, metric"
    ).fetchall():
        if candidate in order:
            scores.setdefault(task, {}).setdefault((imported, metric), {})[candidate] = value, stderr
    targets = []
    for task, ways in scores.items():
        chosen = min(ways, key=lambda way: (way[0], -len(ways[way]), way[1]))
        values, errors = np.full(len(names), np.nan), np.full(len(names), np.nan)
        for candidate, (value, stderr) in ways[chosen].items():
            values[order[candidate]] = value
            errors[order[candidate]] = np.nan if stderr is None else stderr
        imported, metric = chosen
        items = None if imported else _items(db, task, names)
        others = tuple(dict.fromkeys(name for way, name in ways if (way, name) != chosen))
        targets.append(Target(task, metric, values, errors, items, others))
    return tuple(targets)


def _items(db: duckdb.DuckDBPyConnection, task: str, names: Sequence[str]) -> Array:
    rows = db.execute(
        "SELECT candidate, list(correct ORDER BY instance_id) FROM choice_results "
        "JOIN candidates USING (candidate_id) WHERE task = ? GROUP BY candidate",
        [task],
    )
    found = dict(rows.fetchall())
    return np.array([found[name] for name in names], float)
