"""`forecast parity` as a script sees it: exit codes, JSON, words. One start of Ray serves all of it."""

import json
import re
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from driving import run_forecast
from typer.testing import CliRunner

from forecast.cli.main import app


@pytest.fixture
def config(tmp_path: Path) -> Path:
    rows = [{"prompt": f"What is {i} plus {i}?", "solution": f" It is {2 * i}."} for i in range(5)]
    (tmp_path / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "run.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "small",
                "output": "out",
                "engine": {"kind": "fake"},
                "candidates": [
                    {"name": "weak", "source": "fake://1"},
                    {"name": "strong", "source": "fake://4"},
                    {"name": "broken", "source": "fake://2?fail=load"},
                ],
                "trajectories": [{"task": "sums", "path": "solutions.jsonl"}],
            }
        )
    )
    return path


def shift_a_logprob(folder: Path, by: float) -> None:
    """Change one number of one unit of a lake, which then is as a version without checksums wrote it."""
    path = next(folder.rglob("*.parquet"))
    table = pq.read_table(path)
    rows = pl.DataFrame(table)
    logprob = rows["logprob"].to_list()
    logprob[2] -= by
    changed = rows.with_columns(pl.Series("logprob", logprob, dtype=pl.Float32)).to_arrow(
        compat_level=pl.CompatLevel.oldest()
    )
    receipt = json.loads(table.schema.metadata[b"forecast"])
    del receipt["checksum"], receipt["rows_checksum"]
    pq.write_table(changed.replace_schema_metadata({b"forecast": json.dumps(receipt).encode()}), path)


@pytest.mark.slow
def test_from_scoring_to_exit_code(config: Path, tmp_path: Path) -> None:
    code, out, err = run_forecast("parity", config, "--trajectories", "4", "--json")
    record = json.loads(out)
    assert code == 3, err
    assert (record["base"]["label"], record["against"]["label"]) == ("fake, float32", "fake, bfloat16")
    assert (
        0 <= err.index("base: fake, float32") < err.index("2/3 units") < err.index("against: fake, bfloat16")
    )
    (broken,) = record["failed"]
    assert (broken["setup"], broken["candidate"]) == ("both", "broken")
    assert "asked to fail while loading" in broken["error"]
    everything = record["tokens"]["all"]
    assert everything["instances"] == 8, "four trajectories, two candidates"
    assert [d["largest"] for d in everything["differences"]] == [0, 0, 0, 0, 0]
    assert len(record["effects"]["proxies"]) == 80
    assert record["effects"]["instances"] == {"sums": 4}
    assert record["tolerance"] is None
    lakes = [Path(record[side]["lake"]) for side in ("base", "against")]
    assert lakes[0] != lakes[1]
    assert all(tmp_path / "out" / "parity" in lake.parents for lake in lakes)
    assert not (tmp_path / "out" / "lake").exists(), "the run's own lake is left alone"

    sound = ("parity", config, "--trajectories", "4", "--candidate", "weak", "--candidate", "strong")
    page = tmp_path / "parity.html"
    code, out, err = run_forecast(*sound, "--tolerance", "0", "--html", page, "--all")
    assert code == 0, err
    assert page.read_text().count("<table>") == 4
    assert "units" not in err, "everything is scored already"
    assert "Parity of small: base fake, float32; against fake, bfloat16" in out
    assert "order by cross_entropy × uniform: no candidate changes its place" in out
    assert "within the tolerance: no logprob differs by more than 0 nats" in out

    shift_a_logprob(lakes[1], 0.75)
    code, out, _ = run_forecast(*sound, "--tolerance", "0.5")
    assert code == 4
    words = " ".join(out.split())
    told = r"beyond the tolerance of 0\.5 nats: a logprob differs by 0\.75 \((weak|strong), sums/\w+ #2 "
    assert re.search(told, words)
    assert "order by cross_entropy" in words, "the comparison itself is printed all the same"


def test_help_has_an_example() -> None:
    result = CliRunner().invoke(app, ["parity", "--help"])
    assert result.exit_code == 0
    assert "forecast parity configs/demo.yaml" in " ".join(result.output.split())


def test_unknown_key_exits_with_2_and_nothing_to_score_with_1(config: Path, tmp_path: Path) -> None:
    code, out, err = run_forecast("parity", config, "--against", "dtyp=bfloat16", "--json")
    assert (code, out) == (2, "")
    assert "did you mean 'dtype'?" in err
    code, out, err = run_forecast("parity", config, "--against", "engine=torch", "--json")
    assert (code, out) == (1, "")
    assert "against (torch, float32): nothing can be scored" in err
    assert not (tmp_path / "out").exists(), "the base, which could be scored, did not have to wait for that"
    assert "fake:// sources and engine: {kind: fake} go together" in err
