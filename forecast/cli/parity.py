"""`forecast parity`: its options, and what it prints."""

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from forecast import api
from forecast.cli.options import Address, All, ConfigPath, Html, Json
from forecast.cli.scoring import print_event, progress_bars
from forecast.report.console import emit

EPILOG = "Example: forecast parity configs/demo.yaml --against dtype=bfloat16 --tolerance 0.5"


def parity(
    config: ConfigPath,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="What differs from the base: keys of the engine section, several with commas or repeated, "
            "e.g. dtype=bfloat16, engine=vllm or batch_tokens=1. Default: the other dtype, bfloat16 or "
            "float32.",
        ),
    ] = None,
    base: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="What differs from the configuration, on both sides."),
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Compare only this candidate; may be repeated."),
    ] = None,
    trajectories: Annotated[
        int, typer.Option(metavar="N", min=0, help="Read the first N trajectories of each task; 0: all.")
    ] = 32,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="NATS", min=0, help="Exit with 4 if a log-probability differs by more than this."
        ),
    ] = None,
    html: Html = None,
    all_: All = False,
    json_: Json = False,
    address: Address = None,
) -> None:
    """Score the same trajectories with two engines, dtypes or devices: how far apart, and does it matter?"""
    with redirect_stdout(sys.stderr):
        result = api.parity(
            api.load(config),
            against=against or (),
            base=base or (),
            candidate=candidate or (),
            trajectories=trajectories,
            tolerance=tolerance,
            address=address,
            on_event=print_event,
            show=progress_bars(),
        )
    from forecast.analysis.parity.report import document

    emit(
        lambda: document(result),
        result.as_record,
        as_json=json_,
        html=html,
        everything=all_,
        failed=list(result.failed),
        code=result.exit_code,
    )
