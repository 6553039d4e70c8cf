"""The command line: thin commands over the library; Ray is imported only by those that score.

Exit codes: 0 all done; 1 it could not be done; 2 wrong usage or configuration; 3 done, but some candidate,
task or file failed (all are listed; what did not fail is complete); 4 parity: differences beyond
the tolerance; 5 nightly: an alert was raised; 6 nightly: another run is at work; 130 interrupted.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from forecast import __version__
from forecast.cli import checkpoints, convert, corpora, diagnose, jobs, nightly
from forecast.cli.options import Html, Json, load_config
from forecast.cli.parity import Against, Base, First, Only, Tolerance, parity_of
from forecast.cli.rank import rank, ranking_of
from forecast.cli.scoring import aggregate_run, score_run
from forecast.errors import ConfigError, ForecastError, InterruptedRun
from forecast.report.console import emit, err, leave, out, print_failures, print_json

if TYPE_CHECKING:
    from forecast.config.schema import Config
    from forecast.plan import Plan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Forecast how language models will score downstream, from one reading of expert solutions.",
    epilog="Start with: forecast run configs/demo.yaml",
)

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="Configuration file, e.g. configs/demo.yaml.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")]
Address = Annotated[
    str | None,
    typer.Option(help="Address of a Ray cluster; default: the configuration's, else Ray on this machine."),
]

Retry = Annotated[
    bool, typer.Option("--retry", help="Try candidates again that are in quarantine after their own errors.")
]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"forecast {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point; turns errors that a user can act on into messages and exit codes."""
    try:
        app()
    except ConfigError as error:
        _fail(str(error), 2)
    except InterruptedRun as error:
        _fail(str(error), 130)
    except ForecastError as error:
        _fail(str(error), 1)


@app.command(epilog="Example: forecast run configs/demo.yaml")
def run(
    config: ConfigPath,
    json_: Json = False,
    dry_run: DryRun = False,
    address: Address = None,
    retry: Retry = False,
) -> None:
    """Score, aggregate and rank: the whole way from weights and solutions to a ranking."""
    loaded = load_config(config)
    if dry_run:
        _print_plan(plan_of(loaded), json_)
        return
    scored, plan = score_run(loaded, address, retry)
    aggregate_run(plan)
    ranked = ranking_of(loaded)
    if json_:
        print_json({"score": scored, "rank": ranked.as_record()})
    else:
        ranked.print()
        print_failures(ranked.failed)  # those of scoring among them
        out.print(f"\nresults: {plan.config.output}", markup=False, soft_wrap=True)
        if "FORECAST_JOB" not in os.environ:  # a job's files are not for those who read its log
            out.print(f"open the app: {_own_name()} app {config}", markup=False, soft_wrap=True)
    leave(bool(ranked.failed))


@app.command(epilog="Example: forecast score configs/demo.yaml --json")
def score(
    config: ConfigPath,
    json_: Json = False,
    dry_run: DryRun = False,
    address: Address = None,
    retry: Retry = False,
) -> None:
    """Read every trajectory with every candidate; what is already in the lake is not done again."""
    loaded = load_config(config)
    if dry_run:
        _print_plan(plan_of(loaded), json_)
        return
    record, _ = score_run(loaded, address, retry)
    if json_:
        print_json(record)
    else:
        out.print(
            f"{record['done']} of {record['units']} units, {record['rows']:,} token rows in {record['lake']}",
            soft_wrap=True,
        )
        print_failures(record["failed"])
    leave(bool(record["failed"]))


@app.command(epilog="Example: forecast aggregate configs/demo.yaml")
def aggregate(config: ConfigPath, json_: Json = False, dry_run: DryRun = False) -> None:
    """Compute the 80 proxies and the measured scores from the lake, and publish the warehouse."""
    plan = plan_of(load_config(config))
    if dry_run:
        _print_plan(plan, json_)
        return
    failures = aggregate_run(plan)
    from forecast.warehouse.connect import warehouse_path

    failed = [failure.as_record() for failure in failures]
    record = {"warehouse": warehouse_path(plan.config.output), "failed": failed}
    if json_:
        print_json(record)
    else:
        out.print(f"warehouse: {record['warehouse']}", markup=False, soft_wrap=True)
        print_failures(failed)
    leave(bool(failures))


app.command(epilog="Examples: forecast rank configs/demo.yaml --json; forecast rank --table T.csv")(rank)
app.command(epilog=diagnose.EPILOG)(diagnose.diagnose)


@app.command(epilog="Example: forecast show configs/demo.yaml --candidate SmolLM2-135M --task gsm8k --table")
def show(
    config: ConfigPath,
    candidate: Annotated[str | None, typer.Option(help="Default: the first.")] = None,
    task: Annotated[str | None, typer.Option(help="Default: the first.")] = None,
    instance: Annotated[str | None, typer.Option(help="Instance id; default: the first.")] = None,
    expert: Annotated[str | None, typer.Option(help="Default: the first.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Also print every token's statistics.")] = False,
    json_: Json = False,
) -> None:
    """Show one trajectory as a candidate read it, every token coloured by its probability."""
    from forecast.lake.trajectory_view import read_trajectory, reading_view

    reading = read_trajectory(plan_of(load_config(config)), candidate, task, instance, expert)
    if json_:
        print_json(reading.as_record())
    else:
        out.print(reading_view(reading, table))


@app.command(epilog="Example: forecast parity configs/demo.yaml --against dtype=bfloat16 --tolerance 0.5")
def parity(
    config: ConfigPath,
    against: Against = None,
    base: Base = None,
    candidate: Only = None,
    trajectories: First = 32,
    tolerance: Tolerance = None,
    html: Html = None,
    json_: Json = False,
    address: Address = None,
) -> None:
    """Score the same trajectories with two engines, dtypes or devices: how far apart, and does it matter?"""
    from forecast.analysis.parity.report import document

    chosen = (base or (), against or (), candidate or (), trajectories, tolerance)
    found = parity_of(
        load_config(config),
        *chosen,
        address=address,
        score=lambda setup: score_run(setup, address)[1],
        say=lambda text: err.print(text, markup=False),
    )
    emit(lambda: document(found), found.as_record, as_json=json_, html=html, failed=list(found.failed))
    raise typer.Exit(found.exit_code)


@app.command(name="app", epilog="Example: forecast app configs/demo.yaml --port 8501")
def app_(
    config: ConfigPath,
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 8501,
    host: Annotated[
        str, typer.Option(help="Address to listen on; loopback unless told otherwise.")
    ] = "127.0.0.1",
) -> None:
    """Serve the rankings as a web page."""
    import importlib.util
    import os
    import subprocess

    loaded = load_config(config)
    spec = importlib.util.find_spec("app")
    if spec is None or spec.origin is None:
        raise ForecastError(
            "the app is not installed beside forecast; install the project with `pip install -e .`"
        )
    script = Path(spec.origin).with_name("main.py")
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",
        "client.toolbarMode": "viewer",
        "browser.gatherUsageStats": "false",
    }
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    with _interruptible():
        raise typer.Exit(subprocess.call(command, env={**os.environ, "FORECAST_OUTPUT": loaded.output}))


app.command(epilog=corpora.EPILOG)(corpora.corpora)
app.command(epilog=checkpoints.EPILOG)(checkpoints.extrapolate)
app.command(epilog=convert.EPILOG)(convert.convert)
app.command(epilog=nightly.EPILOG)(nightly.nightly)
jobs.register(app)


def plan_of(config: "Config") -> "Plan":
    """As `Run.plan`, imported when it is called."""
    from forecast.api import Run

    return Run(config).plan()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is how one stops a server; it is no error."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _print_plan(plan: "Plan", as_json: bool) -> None:
    from forecast.report.terminal import render
    from forecast.runs.plan_table import plan_document
    from forecast.runs.records import plan_record

    record = plan_record(plan)
    if as_json:
        print_json(record)
    else:
        out.print(render(plan_document(record)))
        print_failures(record["failed"])
    leave(bool(record["failed"]))


def _own_name() -> str:
    """How to call this program from here, also where its virtual environment is not activated."""
    beside = Path(sys.executable).with_name("forecast")
    if shutil.which("forecast") or not beside.exists():
        return "forecast"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)


def _fail(message: str, code: int) -> NoReturn:
    err.print("error: " + message, style="red", markup=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
