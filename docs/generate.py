"""Writes the pages that follow from the code: commands, and the schemas of lake and warehouse.

    .venv/bin/python docs/generate.py            # write them
    .venv/bin/python docs/generate.py --check    # exit with 1 where one is stale; write nothing

The pages depend on the code alone: not on the width of the terminal, the machine or the time.
"""

import argparse
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))  # this tree's packages, whatever is installed

COMMAND = ".venv/bin/python docs/generate.py"
_NOTE = f"<!-- Written by `{COMMAND}`: change the code and run it again. -->"

_TOKEN_COLUMNS = {
    "candidate_id": "hash of the candidate's files, variant, dtype and prompt form; "
    "names are in `forecast score --json`",
    "task": "task of the trajectory",
    "expert": "who wrote the solution",
    "instance_id": "which instance of the task",
    "position": "index among the solution's tokens, from 0",
    "token_id": "the expert's token, an id of the candidate's tokenizer",
    "n_bytes": "UTF-8 bytes of the solution that the token stands for",
    "logprob": "log-probability of the expert's token, nats, never positive",
    "entropy": "of the whole next-token distribution, nats",
    "rank": "1 + number of vocabulary entries with a strictly greater logit",
    "ties": "other entries with exactly the same logit; in bfloat16 nearly half of all tokens have some",
    "top1_logprob": "log-probability of the model's first choice, nats",
    "top1_id": "the model's first choice; of several with exactly the largest logit the lowest id",
}
_RECEIPT_FIELDS = {
    "address": "hash of all that shapes the unit's numbers; the file's name",
    "candidate_id": "as in the rows",
    "task": "as in the rows",
    "rows": "scored tokens in the file",
    "tokens_read": "tokens, prompts included, also where they were shared",
    "seconds": "time that scoring took",
    "vocab_size": "entries of the vocabulary, without padding",
    "parameters": "of the candidate",
    "input_embedding": "of the parameters, those of an input embedding that is not the output head too; "
    "null in files of earlier versions",
    "unscored": "instances that the candidate could not read: instance_id, expert, reason",
    "device": "what it ran on",
    "versions": "of forecast and of the engine's packages",
    "finished_at": "Unix time",
    "node": "of the cluster; null in files of earlier versions and outside Ray",
    "rows_checksum": "of the rows, by expert, instance and position; null in files of earlier versions",
}


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _text(text: str | None) -> str:
    """On one line; angle brackets and asterisks are no markup."""
    return re.sub(r"\s+", " ", text or "").strip().replace("<", "&lt;").replace("*", "\\*")


def _sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") or not text else ".")


def cli_page() -> str:
    """Every command with its arguments, options, defaults and help."""
    import typer

    from forecast.cli.main import app

    root: Any = typer.main.get_command(app)
    parts = [
        "# Commands",
        _NOTE,
        f"{_text(root.help)} What the exit codes mean: [reference/exit-codes.md](reference/exit-codes.md).",
    ]
    every = {name: command for name, command in root.commands.items() if not command.hidden}
    parts.append(
        _table(
            ("command", "does"),
            [
                (f"[`forecast {name}`](#forecast-{name})", _text(command.help.split("\n\n")[0]))
                for name, command in every.items()
            ],
        )
    )
    if options := _parameters(root):
        parts += ["Before the command:", options]
    for name, command in every.items():
        parts.append(f"## forecast {name}")
        parts += [_text(paragraph) for paragraph in command.help.split("\n\n")]
        parts.append(_parameters(command))
        if command.epilog:
            parts.append(_text(command.epilog))
    return "\n\n".join(parts) + "\n"


def _parameters(command: Any) -> str:
    rows = [_parameter(p) for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    return _table(("argument or option", "default", "meaning"), rows) if rows else ""


def _parameter(parameter: Any) -> tuple[str, str, str]:
    flag = getattr(parameter, "is_flag", False)
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    else:
        name = " / ".join([*parameter.opts, *parameter.secondary_opts])
        name += "" if flag else f" {parameter.metavar or _kind(parameter)}"
    if parameter.required:
        default = "required"
    elif parameter.default is None or (flag and not parameter.secondary_opts):
        default = ""
    elif flag:
        default = f"`{parameter.opts[0] if parameter.default else parameter.secondary_opts[0]}`"
    else:
        default = f"`{parameter.default}`"
    return f"`{name}`", default, _text(parameter.help)


def _kind(parameter: Any) -> str:
    """The values of a choice, else the name of the type."""
    text = str(parameter.type_descriptor.annotation)
    if choices := re.findall(r"'([\w-]+)'", text) if "Literal" in text else []:
        return "|".join(choices)
    return next((word for word in ("int", "float") if word in text), "text").upper()


def lake_page() -> str:
    """Columns of a token row, and the fields of a receipt."""
    from forecast.lake.files import Receipt
    from forecast.scoring import TOKEN_ROW

    described = _TOKEN_COLUMNS.keys() | _RECEIPT_FIELDS.keys()
    if missing := (TOKEN_ROW.keys() | {field.name for field in fields(Receipt)}) ^ described:
        raise SystemExit(f"docs/generate.py: describe {sorted(missing)}, or take what is gone away")
    columns = [(f"`{name}`", str(kind), _TOKEN_COLUMNS[name]) for name, kind in TOKEN_ROW.items()]
    receipt = [
        (f"`{name}`", f"`{_name(kind)}`", _RECEIPT_FIELDS[name])
        for name, kind in get_type_hints(Receipt).items()
    ]
    return (
        "\n\n".join(
            [
                "# Schema of the lake",
                _NOTE,
                "`OUTPUT/lake/CANDIDATE_ID/ADDRESS.parquet`: one file per unit, one row per scored token. "
                "Options of direct evaluation have the same columns below `OUTPUT/choices`. DuckDB, polars "
                "and every other reader of Parquet can read them. The lake may also hold units of earlier "
                "configurations; the warehouse's table `units` names the files of the present one.",
                _table(("column", "type", "meaning"), columns),
                "## Receipt",
                "What belongs to the whole unit is in the file's key-value metadata: JSON, key `forecast`. "
                "A further field, `checksum`, is of the others.",
                _table(("field", "type", "meaning"), receipt),
            ]
        )
        + "\n"
    )


def _name(kind: Any) -> str:
    return (
        kind.__name__
        if isinstance(kind, type) and not hasattr(kind, "__args__")
        else str(kind).replace("forecast.lake.files.", "")
    )


def warehouse_page() -> str:
    """All tables of a warehouse, with the comments of the statements that create them."""
    import duckdb

    from forecast.proxies.byte_proxies import byte_columns
    from forecast.proxies.token_proxies import PROXIES
    from forecast.warehouse.sql import statement

    proxy_columns = ",\n".join(f"{proxy.name} DOUBLE" for proxy in PROXIES)
    parts = [
        "# Schema of the warehouse",
        _NOTE,
        "One DuckDB file, written anew by `forecast aggregate`; what others leave beside it is removed "
        "then. Only tables exactly like these are read, so keep notes in a file of your own. "
        "What a candidate or score lacks is null. "
        "The proxies: [concepts/proxies.md](../concepts/proxies.md). "
        f"`METRIC__WEIGHTING` stands for the {len(PROXIES)} of them.",
    ]
    with duckdb.connect() as db:
        for name in ("tables", "byte_tables", "task_proxies", "byte_task_proxies"):  # as the build runs them
            text = statement(name)
            db.execute(statement(name, proxy_columns=proxy_columns, byte_columns=byte_columns()))
            for table, beside in re.findall(r"^CREATE TABLE (\w+)\b[^\n]*?(?:-- (.*))?$", text, re.MULTILINE):
                above, body = _split(text, table)
                comments = _column_comments(body)
                rows = [
                    (f"`{column}`", kind, comments.get(column, ""))
                    for column, kind, *_ in db.execute(f"DESCRIBE {table}").fetchall()
                ]
                about = _sentence(_text(beside or (_lead(above) if name.endswith("task_proxies") else "")))
                parts += [f"## {table}", about, _table(("column", "type", "meaning"), _folded(rows))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _split(text: str, table: str) -> tuple[str, str]:
    """What stands above the statement that creates a table, and the statement itself."""
    above, created, after = text.partition(f"CREATE TABLE {table}")
    lines: list[str] = []
    for line in after.split("\n"):
        lines.append(line)
        if ";" in line.partition("--")[0]:
            break
    return above, created + "\n".join(lines)


def _lead(above: str) -> str:
    """The comment lines at the end."""
    lines = re.search(r"((?:^--[^\n]*\n)+)\Z", above, re.MULTILINE)
    return re.sub(r"^-- ?", "", lines[1], flags=re.MULTILINE) if lines else ""


def _column_comments(body: str) -> dict[str, str]:
    """Comments at the ends of the lines that name a column, first or after AS."""
    found = re.findall(r'^\s+(?:.*\bAS )?"?(\w+)"?(?: [A-Z]+)?,?  -- (.*)$', body, re.MULTILINE)
    return {column: _text(comment) for column, comment in found}


def _folded(rows: list[tuple[str, str, str]]) -> list[tuple[str, ...]]:
    """The columns of the 80 proxies as one row."""
    folded: dict[str, tuple[str, str, str]] = {}
    for column, kind, meaning in rows:
        prefix = "byte_" if column.startswith("`byte_") else ""
        if "__" in column:
            column, meaning = f"`{prefix}METRIC__WEIGHTING`", "one column for each proxy"
        folded.setdefault(column, (column, kind, meaning))
    return list(folded.values())


PAGES = {
    "cli.md": cli_page,
    "reference/lake-schema.md": lake_page,
    "reference/warehouse-schema.md": warehouse_page,
}


def stale() -> list[str]:
    """Names of the pages that differ from what the code says."""
    return [
        name
        for name, page in PAGES.items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != page()
    ]


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 where a page is stale; write nothing"
    )
    check = parser.parse_args().check
    old = stale()
    for name in old:
        if check:
            print(f"docs/{name} is stale: run {COMMAND}", file=sys.stderr)
        else:
            (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
            (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
            print(f"docs/{name}")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
