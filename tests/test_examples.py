"""Every snippet of docs/python-api.md and every cell of the example notebook runs."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from lakes import solutions
from worlds import csv_of, world

import forecast
from forecast.analysis.ranking.scorers.registry import save

ROOT = Path(__file__).parents[1]


def run_blocks(blocks: list[str], name: str) -> dict[str, Any]:
    """The names that the blocks define, run one after the other."""
    assert blocks
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{name}, block {number}", "exec"), names)
    return names


def write_inputs(folder: Path) -> None:
    """The files that the snippets name."""
    candidates = [f"m{i}" for i in range(5)]
    (folder / "solutions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in solutions("a", "b", "c")))
    rows = "".join(f"{name},sums,accuracy,{i / 10}\n" for i, name in enumerate(candidates, 1))
    (folder / "scores.csv").write_text("candidate,task,metric,value\n" + rows)
    columns = {"prompt": "prompt", "solution": "solution", "instance_id": "id", "expert": "expert"}
    settings = {
        "name": "snippets",
        "output": "out",
        "engine": {"kind": "fake"},
        "candidates": [{"name": n, "source": f"fake://{i}"} for i, n in enumerate(candidates, 1)],
        "trajectories": [{"task": "sums", "path": "solutions.jsonl", "columns": columns}],
        "measured_scores": [{"format": "csv", "path": "scores.csv"}],
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    (folder / "T.csv").write_text(csv_of(world("ability", 0, candidates=9, tasks=4, features=4, family=2)))
    (folder / "new.csv").write_text(csv_of(world("ability", 1, candidates=5, tasks=2, features=4)))
    quick = {"permutations": 9, "bootstraps": 50, "workers": 1}
    fitted = forecast.rank_table(folder / "T.csv", scorer="univariate", **quick).fitted
    assert fitted is not None
    save(fitted, folder / "scorer.json")
    corpora = [f"c{i}" for i in range(6)]
    small = [
        (c, "10M", s, "t", "cross_entropy", 3 - i / 10 + s / 100)
        for i, c in enumerate(corpora)
        for s in (0, 1)
    ]
    large = [(c, s, "t", "accuracy", 0.3 + i / 20 + s / 100) for i, c in enumerate(corpora) for s in (0, 1)]
    schema = ["corpus", "size", "seed", "task", "metric", "value"]
    pl.DataFrame(small, schema, orient="row").write_csv(folder / "small.csv")
    pl.DataFrame(large, [n for n in schema if n != "size"], orient="row").write_csv(folder / "targets.csv")
    checkpoints = forecast.convert("olmo", ROOT / "configs" / "data" / "olmo2_7b_evals.csv")
    checkpoints.filter(pl.col("task") == "arc_easy_test_rc").write_csv(folder / "checkpoints.csv")


@pytest.mark.slow
def test_snippets_of_the_python_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python-api.md").read_text()
    names = run_blocks(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL), "docs/python-api.md")
    assert names["record"]["done"] == len(names["plan"].units) == 5 and names["failures"] == []
    assert names["means"].height == 5
    assert names["held_out"].rows and names["ranked"].rows and names["comparison"].rows
    assert names["checkpoints"].forecasts and not names["checkpoints"].failed
    assert (tmp_path / "ranking.html").stat().st_size > 0
    assert names["stats"].logprob.shape == (4,)


@pytest.mark.slow
def test_cells_of_the_example_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cells = json.loads((ROOT / "examples" / "python_interface.ipynb").read_text())["cells"]
    names = run_blocks(
        ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"], "python_interface.ipynb"
    )
    assert names["corpora"].rows and names["forecasts"].rows
    assert {row.scorer for row in names["ranked"].rows} >= {"univariate", "sparse-3"}
