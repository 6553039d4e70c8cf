"""Row numbers and doubled columns under the names that other programs give them, and what only looks so."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from forecast.analysis.ranking.feature_table_from_file import read_table
from forecast.config.candidates import CandidateConfig
from forecast.config.sources import ChoiceSource, MeasuredSource, TrajectorySource
from forecast.errors import InputError
from forecast.inputs.long_table import read_long_table
from forecast.inputs.measured_scores import load_scores
from forecast.inputs.multiple_choice import load_choices
from forecast.inputs.published import datadecide, olmo
from forecast.inputs.published.observational_scaling import read_score_table
from forecast.inputs.table_columns import measurements
from forecast.inputs.trajectories import load_trajectories

FEATURE = [0.31, -1.2, 0.5, 0.92, 1.77, -0.4, 0.08, 2.1, -0.9, 0.6]
N = len(FEATURE)


def kept(name: str, cells: Sequence[Any]) -> list[str]:
    table = {"task": list("aabbccddee"), "score": FEATURE[::-1], "loss": FEATURE, name: cells}
    names, notes = measurements("t.csv:1", table, ("task", "score"))
    assert len(notes) == 2 - len(names)
    return names


@pytest.mark.parametrize(
    "name",
    [
        *("Unnamed: 0", "Unnamed: 0.1", "Unnamed: 0.1.1", "Unnamed: 7", "Unnamed: 0_level_0"),
        *(
            "__index_level_0__",
            "__index_level_1__",
            "index",
            "Index",
            "index_1",
            "level_0",
            "level_1",
            "",
            " ",
        ),
        *("column_1", "row_nr", "row_index", "row_number", "rownum", "row", "idx"),
        *(
            "...1",
            "X",
            "X1",
            "rownames",
            "rn",
            "V1",
            "Obs",
            "Column1",
            "column0",
            "_c0",
            "field_1",
            "#",
            "No.",
        ),
        *("id", "ID", "row_id", "record_id", "modelId", "S.No"),
    ],
)
@pytest.mark.parametrize("kind", ["from 0", "from 1 as text", "reordered", "as floats"])
def test_row_numbers_are_no_measurements(name: str, kind: str) -> None:
    order = np.random.default_rng(1).permutation(N).tolist()
    numbers: dict[str, list[Any]] = {
        "from 0": list(range(N)),
        "from 1 as text": [str(i + 1) for i in range(N)],
        "reordered": order,
        "as floats": [float(i) for i in order],
    }
    assert kept(name, numbers[kind]) == ["loss"]


@pytest.mark.parametrize(
    "cells", [list(range(100, 110)), list(range(N, 0, -1)), [3, 1, 2, 10, 9, 8, 7, 6, 5, 4]]
)
def test_numbers_that_count_the_rows_are_no_measurements_under_any_name(cells: list[int]) -> None:
    assert kept("place", cells) == ["loss"]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("layers", [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]),
        ("layers", [1, 2, 3, 4, 5, 5, 5, 5, 5, 5]),
        ("index", FEATURE[::-1]),  # an index of quality
        ("x", [v * 2 for v in FEATURE]),
        ("n", [70, 160, 410, 1000, 1400, 2800, 6900, 12000, 70000, 130000]),  # millions of parameters
        ("loss_1", [v + 1 for v in FEATURE]),
        ("top-1", [v + 1 for v in FEATURE]),
        ("valid", [0, 1, 1, 0, 1, 0, 0, 1, 1, 1]),
        ("grid", [3, 3, 4, 5, 6, 7, 8, 9, 9, 9]),
        ("pass@10", [v**2 for v in FEATURE]),
        ("accuracy", FEATURE),  # the same numbers under a name that is no copy's
    ],
)
def test_measurements_stay(name: str, cells: list[Any]) -> None:
    assert kept(name, cells) == ["loss", name]


def test_few_rows_may_count_by_chance_and_nameless_empty_columns_are_left_out() -> None:
    table = {"layers": [1, 2, 3], "depth": [2.5, 1.0, 0.5], "Unnamed: 3": [None, "", None]}
    assert measurements("t", table) == (
        ["layers", "depth"],
        ["column 'Unnamed: 3' holds row numbers or nothing, no measurements: left out"],
    )


@pytest.mark.parametrize("name", ["", "Unnamed: 4", "...4", "__index_level_0__"])
def test_a_nameless_column_of_other_numbers_is_refused(name: str) -> None:
    with pytest.raises(
        InputError, match=r"t.csv:1: column .* has no name and holds numbers; name or remove it"
    ):
        kept(name, FEATURE[::-1])


COPIES = [
    *("loss.1", "loss.2", "loss_duplicated_0", "loss_duplicated_1", "loss...4"),
    *(
        "loss_1",
        "loss__1",
        "loss (2)",
        "loss:1",
        "loss_x",
        "loss_right",
        "loss2",
        "Loss",
        " loss",
        "loss copy",
    ),
]


@pytest.mark.parametrize("name", COPIES)
def test_a_column_given_twice_is_used_once(name: str) -> None:
    assert kept(name, [f"{v:.3f}" for v in FEATURE]) == ["loss"]


@pytest.mark.parametrize("name", ["score.1", "score_duplicated_0", "score_x", "score_1", "Score"])
def test_a_copy_of_the_score_is_no_feature(name: str) -> None:
    assert kept(name, FEATURE[::-1]) == ["loss"]


@pytest.mark.parametrize("name", ["loss.1", "loss_duplicated_0", "loss...4", "score.1", "score_duplicated_3"])
def test_two_columns_of_one_name_that_differ_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"is what programs call a second column .*; rename or remove one"):
        kept(name, [v + 1 for v in FEATURE])


def test_all_columns_that_readr_renamed_are_one() -> None:
    table = {"MMLU...3": FEATURE, "ARC": FEATURE[::-1], "MMLU...5": FEATURE}
    assert measurements("t", table)[0] == ["MMLU...3", "ARC"]
    with pytest.raises(InputError, match="is what programs call a second column"):
        measurements("t", {**table, "MMLU...5": FEATURE[::-1]})


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(f"m{i}", f"f{i // 2}", t, i / 11, rng.normal()) for t in "ab" for i in range(6)]
    return pd.DataFrame(rows, columns=["candidate", "family", "task", "score", "feat"])


def saved(data: pd.DataFrame, path: Path) -> str:
    """As pandas saves a table with its row numbers, and once more after it was read again."""
    if path.suffix == ".parquet":
        data.set_axis(np.arange(len(data)).astype("int64")).to_parquet(path)
    elif path.name == "again.csv":
        data.to_csv(path)
        pd.read_csv(path).to_csv(path)
        pd.read_csv(path).to_csv(path, index=False)
    elif path.name == "reset.jsonl":
        data.sample(frac=1, random_state=0).reset_index().to_json(path, orient="records", lines=True)
    elif path.name == "polars.csv":
        pl.from_pandas(data).with_row_index().write_csv(path)
    else:
        data.to_csv(path)
    return str(path)


@pytest.mark.parametrize("name", ["once.csv", "again.csv", "index.parquet", "reset.jsonl", "polars.csv"])
def test_rank_takes_no_row_numbers_as_features(name: str, tmp_path: Path) -> None:
    found = read_table(saved(frame(), tmp_path / name))
    assert found.table.features == ("feat",)
    assert all("row numbers" in warning for warning in found.warnings)


def test_a_column_named_as_a_feature_or_baseline_is_used(tmp_path: Path) -> None:
    path = saved(frame().reset_index(), tmp_path / "t.csv")
    assert read_table(path, ["index", "feat"]).table.features == ("feat", "index")
    found = read_table(path, covariates=["index"])
    assert (found.table.features, found.table.covariates) == (("feat",), ("index",))


HEAD = "Model,Model Family,Model Size (B),Pretraining Data Size (T),FLOPs (1E21),MMLU,ARC"
SCORES = "a,f,1,1,6,0.3,0.4\nb,g,2,1,12,0.5,0.45\n"


@pytest.mark.parametrize("name", ["MMLU.1", "MMLU_duplicated_0", "MMLU_1"])
def test_published_scores_without_row_numbers_and_copies(name: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = [f"{line},{line.split(',')[5]}" for line in SCORES.splitlines()]
    path.write_text(f",{HEAD},{name}\n" + "".join(f"{i},{line}\n" for i, line in enumerate(lines)))
    found = read_score_table(str(path))
    assert found.benchmarks == ("MMLU", "ARC") and len(found.warnings) == 2
    path.write_text(f"{HEAD},MMLU\n" + "\n".join(lines))
    with pytest.raises(InputError, match="columns given twice: MMLU"):
        read_score_table(str(path))


@pytest.mark.parametrize("reader", ["long", "measured", "trajectories", "choices", "datadecide", "olmo"])
def test_readers_of_named_columns_refuse_a_second_one(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"

    def read(header: str, twice: str) -> None:
        columns = header.split(",")
        path.write_text(",".join([*columns, twice]) + "\n" + ",".join("1" for _ in [*columns, twice]) + "\n")
        if reader == "long":
            read_long_table(str(path), ["run", "value"], ["task"])
        elif reader == "measured":
            load_scores(
                MeasuredSource(format="csv", path=str(path)), [CandidateConfig(name="1", source="fake://1")]
            )
        elif reader == "trajectories":
            load_trajectories(TrajectorySource(task="t", path=str(path)))
        elif reader == "choices":
            source = ChoiceSource(
                task="t", path=str(path), prompt_template="{q}", choices=("a", "b"), answer="gold"
            )
            load_choices(source)
        else:
            {"datadecide": datadecide.convert, "olmo": olmo.convert}[reader](str(path))

    header, used = {
        "long": ("run,task,value", "value"),
        "measured": ("candidate,task,metric,value", "value"),
        "trajectories": ("prompt,solution", "solution"),
        "choices": ("q,a,b,gold", "gold"),
        "datadecide": ("corpus,size,seed_index,nll_per_char_olmes10", "nll_per_char_olmes10"),
        "olmo": ("_step,eval/downstream/x_5shot_acc", "eval/downstream/x_5shot_acc"),
    }[reader]
    for twice in (used, f"{used}.1", f"{used}_duplicated_0"):
        with pytest.raises(InputError, match=r"t\.csv:\d"):
            read(header, twice)
    if reader in ("long", "trajectories"):
        read(header, "Unnamed: 0")  # nobody asks for it
