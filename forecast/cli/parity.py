"""Options of `forecast parity`, and the scoring of both setups on one Ray."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from forecast.analysis.parity.compare import ParityResult
    from forecast.config.schema import Config
    from forecast.plan import Plan

Against = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="What differs from the base: keys of the engine section, several with commas or repeated, "
        "e.g. dtype=bfloat16, engine=vllm or batch_tokens=1. Default: the other dtype, bfloat16 or float32.",
    ),
]
Base = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="What differs from the configuration, on both sides."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--candidate", metavar="NAME", help="Compare only this candidate; may be repeated."),
]
First = Annotated[
    int, typer.Option(metavar="N", min=0, help="Read the first N trajectories of each task; 0: all.")
]
Tolerance = Annotated[
    float | None,
    typer.Option(metavar="NATS", min=0, help="Exit with 4 if a log-probability differs by more than this."),
]


def parity_of(
    config: "Config",
    base: Sequence[str],
    against: Sequence[str],
    candidates: Sequence[str],
    trajectories: int,
    tolerance: float | None,
    *,
    address: str | None,
    score: "Callable[[Config], Plan]",
    say: Callable[[str], None],
) -> "ParityResult":
    """Score what is missing under both setups, then compare them; see `forecast.analysis.parity`.

    Args:
        score: scores a configuration and returns its plan.
        say: called with the setup that is scored next.
    """
    from forecast.analysis.parity.compare import compare
    from forecast.analysis.parity.setups import two_setups, unfinished

    setups = two_setups(config, base, against, candidates, trajectories)
    plans = []
    with ExitStack() as stack:
        if unfinished(setups):  # starting Ray takes seconds, so it is done once
            from actors.cluster import connected

            stack.enter_context(redirect_stdout(sys.stderr))
            stack.enter_context(connected(config.cluster, address))
        for setup in (setups.base, setups.against):
            say(f"{setup.role}: {setup.label}")
            plans.append(score(setup.config))
    return compare(config, setups, plans[0], plans[1], tolerance)
