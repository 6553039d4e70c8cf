"""`forecast diagnose` between the command line and the library: its options, progress, and what it prints."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from forecast.cli.options import Html, Json, load_config
from forecast.errors import ConfigError
from forecast.report.console import emit, err, leave
from forecast.runs.progress import WorkProgress

EPILOG = "Example: forecast diagnose configs/demo.yaml --corpus my-corpus.jsonl.zst --html diagnosis.html"

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="Configuration file, e.g. configs/demo.yaml.")
]
Proxy = Annotated[
    list[str] | None,
    typer.Option(
        "--proxy",
        metavar="NAME",
        help="Proxy to look at, e.g. cross_entropy__uniform; may be repeated. Default: that one and the one "
        "that leads the ranking.",
    ),
]
Corpus = Annotated[
    list[str] | None,
    typer.Option(
        "--corpus",
        metavar="FILE",
        help="Look the trajectories up in this text, JSONL or Parquet file (also .gz, .zst) or folder; local "
        "or s3://; may be repeated.",
    ),
]
CorpusColumn = Annotated[
    str, typer.Option(metavar="NAME", help="Column with the text of JSONL and Parquet rows.")
]
Ngram = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Length of a match. Default: 13 words or 50 characters."),
]
Of = Annotated[Literal["words", "characters"], typer.Option("--ngram-of", help="Unit of n-grams.")]
MinKPercent = Annotated[
    float,
    typer.Option(
        "--min-k", metavar="PERCENT", min=0.1, max=100, help="Percent of least likely tokens in Min-K%."
    ),
]
Windows = Annotated[
    str, typer.Option(metavar="N,N", help="Windows to compare with all scored tokens: their last N.")
]


def diagnose(
    config: ConfigPath,
    proxy: Proxy = None,
    corpus: Corpus = None,
    corpus_column: CorpusColumn = "text",
    ngram: Ngram = None,
    ngram_of: Of = "words",
    min_k: MinKPercent = 20.0,
    windows: Windows = "100,250,500,1000",
    html: Html = None,
    json_: Json = False,
) -> None:
    """What could make the ranking look better than it is: experts, ties, windows, tokenizers, leaks."""
    lengths = _lengths(windows)
    loaded = load_config(config)
    from forecast.analysis.diagnostics.diagnose import DiagnoseOptions, diagnose
    from forecast.analysis.diagnostics.report import document
    from forecast.warehouse.connect import open_warehouse, read_failures

    options = DiagnoseOptions(
        proxies=tuple(dict.fromkeys(proxy or ())),
        windows=lengths,
        min_k_percent=min_k,
        corpus=tuple(corpus or ()),
        corpus_column=corpus_column,
        ngram=ngram or (13 if ngram_of == "words" else 50),
        unit=ngram_of,
    )
    with open_warehouse(loaded.output) as db:
        failed = [failure.as_record() for failure in read_failures(db)]
        found = diagnose(db, loaded, options, partial(WorkProgress, err))
    failed += found.failed
    emit(
        lambda: document(found, str(config)),
        lambda: {**found.as_record(), "failed": failed},
        as_json=json_,
        html=html,
        failed=failed,
    )
    leave(bool(failed))


def _lengths(text: str) -> tuple[int, ...]:
    try:
        lengths = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        lengths = (0,)
    if any(n < 1 for n in lengths):
        raise ConfigError(
            f"--windows {text}: expected numbers of tokens, 1 or more, with commas, e.g. 100,500"
        )
    return lengths
