"""`forecast diagnose`: its options, and what it prints."""

from typing import Annotated, Literal

import typer

from forecast import api
from forecast.cli.options import All, ConfigPath, Html, Json
from forecast.report.console import emit, err
from forecast.runs.progress import WorkProgress

EPILOG = "Example: forecast diagnose configs/demo.yaml --corpus my-corpus.jsonl.zst --html diagnosis.html"


def diagnose(
    config: ConfigPath,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Proxy to look at, e.g. cross_entropy__uniform; may be repeated. Default: that one and the "
            "one that leads the ranking.",
        ),
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Look the trajectories up in this text, JSONL or Parquet file (also .gz, .zst) or folder; "
            "local or s3://; may be repeated.",
        ),
    ] = None,
    corpus_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column with the text of JSONL and Parquet rows.")
    ] = "text",
    ngram: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Length of a match. Default: 13 words or 50 characters."),
    ] = None,
    ngram_of: Annotated[Literal["words", "characters"], typer.Option(help="Unit of n-grams.")] = "words",
    min_k: Annotated[
        float,
        typer.Option(metavar="PERCENT", min=0.1, max=100, help="Percent of least likely tokens in Min-K%."),
    ] = 20.0,
    windows: Annotated[
        str, typer.Option(metavar="N,N", help="Windows to compare with all scored tokens: their last N.")
    ] = "100,250,500,1000",
    html: Html = None,
    all_: All = False,
    json_: Json = False,
) -> None:
    """What could make the ranking look better than it is: experts, ties, windows, tokenizers, leaks."""
    run = api.load(config)
    result = api.diagnose(
        run,
        proxy=proxy or (),
        corpus=corpus or (),
        corpus_column=corpus_column,
        ngram=ngram,
        ngram_of=ngram_of,
        min_k=min_k,
        windows=windows,
        watch=lambda what: WorkProgress(err, what),
    )
    failed = [*run.failed, *result.failed]
    emit(
        lambda: result.report(str(config)),
        lambda: {**result.as_record(), "failed": failed},
        as_json=json_,
        html=html,
        everything=all_,
        failed=failed,
    )
