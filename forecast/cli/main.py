"""The command line: thin commands over the library; Ray is imported only by those that score.

Exit codes: 0 all done; 1 it could not be done; 2 wrong usage or configuration; 3 done, but some candidate,
task or file failed (all are listed; what did not fail is complete); 4 parity: differences beyond
the tolerance; 5 nightly: an alert was raised; 6 nightly: another run is at work;
130 interrupted by Ctrl-C; 143 by SIGTERM.
"""

import os
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from forecast import __version__, api
from forecast.cli import checkpoints, convert, corpora, diagnose, jobs, nightly, parity
from forecast.cli.interruption import RESUME, Interruption
from forecast.cli.numbers import PlainNumbers
from forecast.cli.options import Address, All, ConfigPath, DryRun, Json, Retry
from forecast.cli.rank import rank
from forecast.cli.scoring import aggregate_run, checked_plan, ranking_of, score_run
from forecast.errors import ConfigError, ForecastError, InterruptedRun
from forecast.report.console import err, leave, out, print_failures, print_json
from forecast.report.terminal import Short, render
from forecast.safe_text import printable, without_secrets, words_shortened

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType


# Groups of commands in --help.
RUN, ANSWER, LOOK = "Run", "Answers", "A closer look"

app = typer.Typer(
    cls=PlainNumbers,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Forecast how language models will score downstream, from one reading of expert solutions.",
    epilog="Start with: forecast run configs/demo.yaml",
)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"forecast {__version__}")
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
    os.environ["PYTHONSAFEPATH"] = "1"  # what we start imports nothing from the current folder
    interruption = Interruption()
    try:
        try:
            app()
        finally:
            sys.excepthook = _print_traceback  # in place of typer's
            sys.stdout.flush()
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("actors", "app"):
            raise
        err.print(
            f"error: another package is found where forecast's own should be: {error}; remove it from "
            "PYTHONPATH, or install proxy-forecast into an environment of its own",
            style="red",
            soft_wrap=True,
        )
        sys.exit(1)
    except SystemExit as left:
        interruption.end()
        if left.code == signal.SIGTERM:  # while Ray starts, its own handler ends us
            interruption.signal = signal.SIGTERM
        elif interruption.signal is None or left.code != 130:  # Typer's end after an interruption
            raise
        err.print(f"error: {RESUME}", style="red")
        sys.exit(interruption.exit_code)
    except (InterruptedRun, KeyboardInterrupt) as error:
        interruption.end()
        err.print(f"error: {str(error) or RESUME}", style="red", soft_wrap=True)
        sys.exit(interruption.exit_code)
    except ForecastError as error:
        err.print(f"error: {words_shortened(str(error))}", style="red", soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except OSError as error:
        from forecast.storage.errors import FIXES, explanation

        if error.errno not in FIXES:
            raise
        # What is left in the buffer would be tried again at the end, with a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        where = str(error.filename or "standard output")
        err.print(f"error: {explanation(where, error)}", style="red", soft_wrap=True)
        sys.exit(1)


@app.command(rich_help_panel=RUN, epilog="Example: forecast run configs/demo.yaml")
def run(
    config: ConfigPath,
    json_: Json = False,
    dry_run: DryRun = False,
    address: Address = None,
    retry: Retry = False,
    all_: All = False,
) -> None:
    """Score, aggregate and rank: the whole way from weights and solutions to a ranking."""
    loaded = api.load(config)
    if dry_run:
        _print_plan(loaded, json_)
    scored = score_run(loaded, address, retry)
    aggregate_run(loaded, unless_current=True)
    ranked = ranking_of(loaded)
    if json_:
        print_json({"score": scored, "rank": ranked.as_record()})
    else:
        report = ranked.report()
        out.print(f"results: {loaded.config.output}", soft_wrap=True)
        if "FORECAST_JOB" not in os.environ:  # a job's files are not for those who read its log
            out.print(f"open the app: {_own_name()} app {config}", soft_wrap=True)
        out.print(render(report, wide=True) if all_ else Short(report))
        print_failures(ranked.failed)  # those of scoring among them
    leave(bool(ranked.failed))


@app.command(rich_help_panel=RUN, epilog="Example: forecast score configs/demo.yaml --json")
def score(
    config: ConfigPath,
    json_: Json = False,
    dry_run: DryRun = False,
    address: Address = None,
    retry: Retry = False,
) -> None:
    """Read every trajectory with every candidate; what is already in the lake is not done again."""
    loaded = api.load(config)
    if dry_run:
        _print_plan(loaded, json_)
    record = score_run(loaded, address, retry)
    counts = f"{record['done']} of {record['units']} units, {record['rows']:,} token rows"
    _answer(record, f"{counts} in {record['lake']}", json_)


@app.command(rich_help_panel=RUN, epilog="Example: forecast aggregate configs/demo.yaml")
def aggregate(config: ConfigPath, json_: Json = False, dry_run: DryRun = False) -> None:
    """Compute the 80 proxies and the measured scores from the lake, and publish the warehouse."""
    loaded = api.load(config)
    if dry_run:
        _print_plan(loaded, json_)
    failed = [failure.as_record() for failure in aggregate_run(loaded)]
    from forecast.warehouse.connect import warehouse_path

    record = {"warehouse": warehouse_path(loaded.config.output), "failed": failed}
    _answer(record, f"warehouse: {record['warehouse']}", json_)


app.command(
    rich_help_panel=ANSWER,
    epilog="Examples: forecast rank configs/demo.yaml --json; forecast rank --table T.csv",
)(rank)
app.command(rich_help_panel=LOOK, epilog=diagnose.EPILOG)(diagnose.diagnose)


@app.command(
    rich_help_panel=LOOK,
    epilog="Example: forecast show configs/demo.yaml --candidate SmolLM2-135M --task gsm8k --table",
)
def show(
    config: ConfigPath,
    candidate: Annotated[str | None, typer.Option(help="Default: the first.")] = None,
    task: Annotated[str | None, typer.Option(help="Default: the first.")] = None,
    instance: Annotated[str | None, typer.Option(help="Instance id; default: the first.")] = None,
    expert: Annotated[str | None, typer.Option(help="Default: the first.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Also print every token's statistics.")] = False,
    json_: Json = False,
) -> None:
    """Show one trajectory as a candidate read it: each token's probability, and what the model preferred."""
    from forecast.lake.trajectory_view import trajectory_view
    from forecast.report.records import record_of

    found = api.load(config).show(candidate, task, instance, expert)
    if json_:
        print_json(record_of(found))
    else:
        out.print(trajectory_view(found, table))


app.command(rich_help_panel=LOOK, epilog=parity.EPILOG)(parity.parity)


@app.command(name="app", rich_help_panel=LOOK, epilog="Example: forecast app configs/demo.yaml --port 8501")
def app_(
    config: ConfigPath,
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 8501,
    host: Annotated[
        str, typer.Option(help="Address to listen on; loopback unless told otherwise.")
    ] = "127.0.0.1",
) -> None:
    """Serve the rankings as a web page."""
    import subprocess

    loaded = api.load(config)
    root = Path(__file__).parents[2]
    entry = root / "app" / "main.py"
    if not entry.is_file():
        raise ForecastError(
            "the app is not installed beside forecast; install the project with `pip install -e .`"
        )
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",
        "client.toolbarMode": "viewer",
        "browser.gatherUsageStats": "false",
    }
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(entry)]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    known = [
        str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path
    ]
    environment = {
        **os.environ,
        "FORECAST_OUTPUT": loaded.config.output,
        "PYTHONPATH": os.pathsep.join([str(root), *known]),
        "STREAMLIT_CLIENT_DISABLE_DATA_EXPORT": "true",  # the page's own CSV files are safe in spreadsheets
    }
    try:
        # Not in the current folder: its Python files and its .streamlit/config.toml would be obeyed.
        raise typer.Exit(subprocess.call(command, env=environment, cwd=entry.parent))
    except KeyboardInterrupt:  # how one stops a server; it is no error
        raise typer.Exit(0) from None


app.command(rich_help_panel=ANSWER, epilog=corpora.EPILOG)(corpora.corpora)
app.command(rich_help_panel=ANSWER, epilog=checkpoints.EPILOG)(checkpoints.extrapolate)
app.command(rich_help_panel=ANSWER, epilog=convert.EPILOG)(convert.convert)
app.command(rich_help_panel=RUN, epilog=nightly.EPILOG)(nightly.nightly)
jobs.register(app)


def _print_plan(run: api.Run, as_json: bool) -> NoReturn:
    from forecast.runs.records import plan_document, plan_record

    record = plan_record(*checked_plan(run))
    _answer(record, render(plan_document(record)), as_json)
    raise typer.Exit


def _answer(record: dict[str, Any], shown: "RenderableType", as_json: bool) -> None:
    """The record or what people read, then what failed; exits where something did."""
    if as_json:
        print_json(record)
    else:
        out.print(shown, soft_wrap=isinstance(shown, str))
        print_failures(record["failed"])
    leave(bool(record["failed"]))


def _print_traceback(kind: type[BaseException], error: BaseException, trace: "TracebackType | None") -> None:
    """Of an error of the program; what it says may hold text of others and keys of URLs."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(printable(without_secrets(text)), end="", file=sys.stderr)


def _own_name() -> str:
    """How to call this program from here, also where its virtual environment is not activated."""
    beside = Path(sys.executable).with_name("forecast")
    if shutil.which("forecast") or not beside.exists():
        return "forecast"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)


if __name__ == "__main__":
    main()
