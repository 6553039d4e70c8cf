"""Time of `forecast rank` on a table of the paper's size, and of its parts against plain loops.

python tests/benchmarks/bench_ranking.py [--rounds 3] [--permutations 200] [--bootstraps 1000]

The peers do the same work one at a time: every sum of three features is ranked by `scipy.stats.rankdata`,
every RankSVM is fitted by itself, its final solution by scikit-learn's SVC. They are given a share of the
work, and their time for all of it is that share's multiplied up; the record says by how much.
"""

import argparse
import os
import sys
import time
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from measuring import interleaved, machine, write
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).parents[1]))
from worlds import design, imported, world

from forecast.analysis.ranking.held_out import RankOptions, evaluate_held_out
from forecast.analysis.ranking.permutation_null import permuted_scores
from forecast.analysis.ranking.scorers.base import held_in, predict_many
from forecast.analysis.ranking.scorers.registry import SCORERS, make_scorer
from forecast.analysis.ranking.splits import LEAVE_MODELS_OUT, make_protocol

CANDIDATES, TASKS, FEATURES = 18, 6, 80


def whole(permutations: int, bootstraps: int) -> dict[str, Any]:
    """Wall-clock seconds of the full table: 4 protocols, 4 scorers, the bar and the baselines."""
    table = world("ability", 0, CANDIDATES, TASKS, FEATURES, family=3)
    fractions = imported(
        type(table)(**{**vars(table), "scores": 1 / (1 + np.exp(-table.scores))})  # so that all take part
    )
    record = {}
    for workers in dict.fromkeys([1, os.cpu_count() or 1]):
        started = time.perf_counter()
        evaluate_held_out(
            fractions, RankOptions(permutations=permutations, bootstraps=bootstraps), workers=workers
        )
        record[f"{workers} workers"] = time.perf_counter() - started
        print(f"full table, {workers} workers: {record[f'{workers} workers']:.1f} s", flush=True)
    return record


def parts(rounds: int, permutations: int) -> dict[str, Any]:
    """CPU seconds of one fold of leave-models-out for all permutations, for each scorer."""
    table = world("ability", 0, CANDIDATES, TASKS, FEATURES, family=3)
    made = design(table)
    protocol = make_protocol(LEAVE_MODELS_OUT, made.families, np.isfinite(table.scores), 0)
    fold = protocol.folds[0]
    scores = permuted_scores(table.scores, made.usable, table.families, permutations, 0)
    contenders = {
        name: lambda s=make_scorer(name): predict_many(s, made, scores, [fold], protocol.groups, 0)
        for name in SCORERS
    }
    ours = interleaved(contenders, rounds)
    learned = held_in(scores[0], fold)
    rows = [t for t in range(TASKS) if t not in fold.tasks]
    columns = [made.z[t, fold.train] for t in rows]
    triples = np.array(list(combinations(range(FEATURES), 3)))
    signs = np.array([(1, *rest) for rest in product((1, -1), repeat=2)])
    share = triples[:: len(triples) // 500]

    def sparse() -> float:
        """Ranks and rhos of a share of the sums, for one score array."""
        best = 0.0
        for sign in signs:
            rho = np.zeros(len(share))
            for t, x in zip(rows, columns, strict=True):
                ranks = rankdata(x[:, share] @ sign, axis=0)
                y = rankdata(learned[t, fold.train])
                rho += [np.corrcoef(r, y)[0, 1] for r in ranks.T]
            best = max(best, float(np.abs(rho).max()))
        return best

    svm = make_scorer("ranksvm-rbf")
    peers = interleaved(
        {"sparse-3": sparse, "ranksvm-rbf": lambda: svm.fit(made, learned, protocol.groups, 0)}, rounds
    )
    # A score array more costs the plain search only the products; ranking its sums once is counted.
    factors = {"sparse-3": len(triples) / len(share), "ranksvm-rbf": 1 + permutations}
    record: dict[str, Any] = {"permutations": permutations, "ours": ours, "peers": {}}
    for name, factor in factors.items():
        seconds = peers[name]["best"] * factor
        record["peers"][name] = {
            "seconds": seconds,
            "multiplied_by": factor,
            "ratio": seconds / ours[name]["best"],
        }
        print(
            f"{name}: {ours[name]['best']:.2f} s for {1 + permutations} score arrays; one at a time "
            f"{seconds:.0f} s ({record['peers'][name]['ratio']:.0f}x)",
            flush=True,
        )
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--bootstraps", type=int, default=1000)
    options = parser.parse_args()
    record = {
        "machine": machine(1),
        "table": {"candidates": CANDIDATES, "tasks": TASKS, "features": FEATURES},
        "whole_seconds": whole(options.permutations, options.bootstraps),
        "one_fold": parts(options.rounds, options.permutations),
    }
    write("ranking", record)


if __name__ == "__main__":
    main()
