"""One rank of a process group over gloo: computes the cases below with its stretch of the head.

Arguments: rank, world size, folder. The statistics of every case go to FOLDER/RANK.pt.
"""

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from tokenstats.cases import integers, targets_of

from forecast.tokenstats.sharded import sharded_token_stats


class Case(NamedTuple):
    """Whole inputs, and for each world size the bounds of the ranks' stretches of `head`."""

    hidden: torch.Tensor
    head: torch.Tensor
    targets: torch.Tensor
    vocab_size: int
    bounds: dict[int, list[int]]
    bias: torch.Tensor | None = None
    logit_scale: float = 1.0
    softcap: float | None = None
    budgets: tuple[int, ...] = (1 << 20, 1 << 20, 1 << 20)


def cases() -> dict[str, Case]:
    even, uneven = {2: [0, 254, 507], 3: [0, 169, 338, 507]}, {2: [0, 3, 507], 3: [0, 400, 401, 507]}
    head, targets = integers(507, 16, seed=2), targets_of(255, 507)
    hidden = integers(255, 16, seed=1)
    half = {"hidden": hidden.bfloat16(), "head": head.bfloat16(), "targets": targets, "vocab_size": 507}
    whole: dict[str, Any] = {"hidden": hidden, "head": head, "targets": targets, "vocab_size": 507}
    masked, broken = integers(507, seed=3), integers(507, seed=3)
    masked[:400] = -math.inf
    broken[450] = math.nan
    infinite = integers(507, seed=3)
    infinite[2] = math.inf
    padded = torch.cat([head, torch.full((93, 16), 50.0)])
    return {
        "even": Case(**whole, bounds=even),
        "uneven": Case(**whole, bounds=uneven),
        "bfloat16": Case(**half, bounds=uneven),
        "transform": Case(**half, bounds=uneven, bias=integers(507, seed=3), logit_scale=0.5, softcap=5.0),
        "budgets that differ": Case(**whole, bounds=uneven, budgets=(1 << 20, 9_000, 1)),
        "a padded stretch": Case(
            **{**whole, "head": padded}, bounds={2: [0, 450, 600], 3: [0, 450, 560, 600]}
        ),
        "a stretch of padding": Case(
            **{**whole, "head": padded}, bounds={2: [0, 507, 600], 3: [0, 300, 507, 600]}
        ),
        "an empty stretch": Case(**whole, bounds={2: [0, 0, 507], 3: [0, 300, 300, 507]}),
        "a masked stretch": Case(**whole, bounds=uneven, bias=masked),
        "NaN on one rank": Case(**whole, bounds=uneven, bias=broken),
        "infinity on one rank": Case(**whole, bounds=uneven, bias=infinite),
        "one token": Case(hidden[:1], head, targets[-1:], 507, uneven),
        "no token": Case(hidden[:0], head, targets[:0], 507, uneven),
    }


def main() -> None:
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    results: dict[str, Any] = {}
    for name, case in cases().items():
        start, stop = case.bounds[world][rank : rank + 2]
        results[name] = tuple(
            sharded_token_stats(
                case.hidden,
                case.head[start:stop],
                case.targets,
                start=start,
                vocab_size=case.vocab_size,
                bias=None if case.bias is None else case.bias[start:stop],
                logit_scale=case.logit_scale,
                softcap=case.softcap,
                budget_bytes=case.budgets[rank],
            )
        )
    try:  # the last rank repeats a row of the one before it
        start = 100 * rank - (rank == world - 1)
        sharded_token_stats(
            torch.zeros(1, 2), torch.zeros(100, 2), torch.tensor([0]), start=start, vocab_size=100 * world
        )
    except ValueError as error:
        results["overlap"] = str(error)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
