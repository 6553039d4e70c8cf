"""Every schema of lm-evaluation-harness: questions count once, placeholders never, directions are known."""

import json
from pathlib import Path
from typing import Any

import pytest

from forecast.config.candidates import CandidateConfig
from forecast.config.sources import MeasuredSource
from forecast.errors import InputError
from forecast.inputs.measured_scores import load_scores

CANDIDATES = [CandidateConfig(name="m", source="fake://1")]
SCORES = {"law": 0.2, "logic": 0.4, "bio": 0.6, "hum": 0.3, "sci": 0.6, "bench": 0.4, "other": 0.9}
PARTS = {"bench": ["hum", "sci"], "hum": ["law", "logic"], "sci": ["bio"]}
ORDER = ["bench", "hum", "law", "logic", "sci", "bio", "other"]
DEPTHS = {"hum": 1, "sci": 1, "law": 2, "logic": 2, "bio": 2}
ASKED = {"bench": 0.4, "other": 0.9}
LEAVES = {"law": 0.2, "logic": 0.4, "bio": 0.6, "other": 0.9}


def entry(task: str, depth: int | None = None) -> dict[str, Any]:
    depth = DEPTHS.get(task, 0) if depth is None else depth
    alias = " " * depth + "- " + task if depth else task
    return {"alias": alias, "acc,none": SCORES[task], "acc_stderr,none": 0.01}


RESULTS = {task: entry(task) for task in ORDER}
GROUPS = {task: entry(task) for task in PARTS}
UP = {task: {"acc": True} for task in ORDER}
SCHEMAS: dict[str, dict[str, Any]] = {
    "0.4.0": {"results": RESULTS, "groups": GROUPS, "configs": {}, "versions": {}, "n-shot": {}},
    "indented, without groups": {"results": RESULTS},
    "0.4.1": {
        "results": RESULTS,
        "groups": GROUPS,
        "group_subtasks": {**PARTS, **{task: [] for task in LEAVES}},
    },
    "0.4.3": {
        "results": RESULTS,
        "groups": GROUPS,
        "group_subtasks": {"other": [], **PARTS},
        "higher_is_better": UP,
        "n-samples": {task: {"original": 100, "effective": 100} for task in LEAVES},
    },
    "0.4.4, a group without a score": {
        "results": {"all_of_it": {" ": " ", "alias": "all_of_it"}, **RESULTS},
        "groups": GROUPS,
        "group_subtasks": {"all_of_it": ["bench", "other"], **PARTS},
        "higher_is_better": UP,
    },
    "0.4.9, names and counts": {
        "results": {task: {"name": task, "sample_len": 100, **value} for task, value in RESULTS.items()},
        "groups": {task: {**value, "sample_count": {"acc,none": 300}} for task, value in GROUPS.items()},
        "group_subtasks": {"other": [], **PARTS},
        "higher_is_better": {task: up for task, up in UP.items() if task in LEAVES},
    },
    "0.5, groups alone": {
        "results": RESULTS,
        "groups": GROUPS,
        "group_subtasks": PARTS,
        "higher_is_better": UP,
    },
    "0.5, no groups with scores": {
        "results": {
            **{task: {"alias": task} for task in ("bench", "hum", "sci")},
            **{t: entry(t) for t in LEAVES},
        },
        "group_subtasks": PARTS,
        "higher_is_better": UP,
    },
    "a group that holds itself": {"results": RESULTS, "group_subtasks": {"other": ["other"], **PARTS}},
}


def scores(folder: Path, data: Any, **settings: Any) -> dict[str, float]:
    path = folder / "results_2024-01-01T00-00-00.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    given = {"format": "lm_eval", "path": str(path), "candidate": "m", **settings}
    return {s.task: s.value for s in load_scores(MeasuredSource.model_validate(given), CANDIDATES).scores}


def complaint(folder: Path, data: Any, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        scores(folder, data, **settings)
    return str(caught.value)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_each_question_counts_once(schema: str, tmp_path: Path) -> None:
    data = SCHEMAS[schema]
    assert scores(tmp_path, data) == (LEAVES if "no groups with" in schema else ASKED)
    assert scores(tmp_path, data, count_by="leaves") == LEAVES
    assert scores(tmp_path, data, tasks=["law", "other"]) == {"law": 0.2, "other": 0.9}


@pytest.mark.parametrize(
    "tasks", [["bench", "hum"], ["law", "hum"], ["bench", "bio", "other"], ["sci", "bio"]]
)
def test_a_group_and_its_part_cannot_both_be_chosen(tasks: list[str], tmp_path: Path) -> None:
    for schema in ("0.4.0", "0.4.3", "0.5, groups alone"):
        assert "share questions" in complaint(tmp_path, SCHEMAS[schema], tasks=tasks)


def test_groups_that_overlap_are_named(tmp_path: Path) -> None:
    data = {
        "results": RESULTS,
        "group_subtasks": {"hum": ["law", "logic"], "bench": ["law", "bio"], "sci": ["bio"]},
    }
    message = complaint(tmp_path, data)
    assert "share questions" in message and "set count_by: leaves" in message
    assert scores(tmp_path, data, count_by="leaves") == LEAVES


def test_groups_of_unknown_tasks_are_refused_unless_by_leaves(tmp_path: Path) -> None:
    flat = {"results": {task: entry(task, 0) for task in ORDER}, "groups": GROUPS}
    assert "does not say which tasks they hold" in complaint(tmp_path, flat)
    assert scores(tmp_path, flat, count_by="leaves") == LEAVES
    assert scores(tmp_path, flat, tasks=["sci"]) == {"sci": 0.6}


def test_groups_whose_tasks_are_not_in_the_file_stand_for_themselves(tmp_path: Path) -> None:
    data = {
        "results": {"bench": entry("bench"), "hum": entry("hum"), "sci": entry("sci")},
        "group_subtasks": PARTS,
    }
    assert scores(tmp_path, data) == {"bench": 0.4}
    assert scores(tmp_path, data, count_by="leaves") == {"hum": 0.3, "sci": 0.6}


def test_endless_and_entangled_groups_end(tmp_path: Path) -> None:
    circle = {"bench": ["hum"], "hum": ["sci"], "sci": ["bench"]}
    data = {"results": {task: entry(task) for task in circle}, "group_subtasks": circle}
    assert "groups that hold each other" in complaint(tmp_path, data)
    layers = {f"g{i}{side}": [f"g{i + 1}a", f"g{i + 1}b"] for i in range(200) for side in "ab"}
    data = {"results": {"g200a": entry("law"), "g200b": entry("bio")}, "group_subtasks": layers}
    assert scores(tmp_path, data) == {"g200a": 0.2, "g200b": 0.6}


@pytest.mark.parametrize(
    "value", [999, 999.0, "999", "N/A", "", " ", "nan", [], {}, [0.1], {"a": 1}, "None"], ids=repr
)
def test_placeholders_are_no_scores(value: Any, tmp_path: Path) -> None:
    results = {"a": {"acc,none": 0.5}, "b": {"acc,none": value}, "c": {"bypass,none": 0.7, "acc,none": 0.25}}
    assert scores(tmp_path, {"results": results}) == {"a": 0.5, "c": 0.25}
    assert "no scores of the task 'b'" in complaint(tmp_path, {"results": results}, tasks=["b"])


def test_a_file_of_placeholders_says_so(tmp_path: Path) -> None:
    data = {"results": {"a": {"alias": "a", "bypass,none": 999, "bypass_stderr,none": "N/A"}}}
    assert "without --predict_only" in complaint(tmp_path, data)


@pytest.mark.parametrize(
    "stderr", ["N/A", "n/a", [], None, float("nan"), "nan", "", " ", "NaN", "None", "null"], ids=repr
)
def test_what_is_no_standard_error_is_none(stderr: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"results": {"a": {"acc,none": 0.5, "acc_stderr,none": stderr}}}))
    source = MeasuredSource(format="lm_eval", path=str(path), candidate="m")
    assert [s.stderr for s in load_scores(source, CANDIDATES).scores] == [None]
    csv = tmp_path / "scores.csv"
    csv.write_text(f"candidate,task,metric,value,stderr\nm,a,acc,0.5,{'' if stderr == [] else stderr}\n")
    assert [
        s.stderr for s in load_scores(MeasuredSource(format="csv", path=str(csv)), CANDIDATES).scores
    ] == [None]


@pytest.mark.parametrize("stderr", [-0.1, "x", float("inf"), True, [0.1], "0.0_1"], ids=repr)
def test_a_wrong_standard_error_is_refused(stderr: Any, tmp_path: Path) -> None:
    data = {"results": {"a": {"acc,none": 0.5, "acc_stderr,none": stderr}}}
    assert "is not a finite number of 0 or more" in complaint(tmp_path, data)


HIGH = [
    "acc",
    "acc_norm",
    "exact_match",
    "f1",
    "bleu",
    "chrf",
    "rouge1",
    "mcc",
    "pass@1",
    "em",
    "likelihood",
    "score",
]
LOW = [
    *(
        "perplexity",
        "word_perplexity",
        "byte_perplexity",
        "bits_per_byte",
        "brier_score",
        "ter",
        "wer",
        "loss",
    ),
    *("likelihood_diff", "toxicity", "amb_bias_score", "rmse"),
]
UNKNOWN = ["quality", "pct_fair", "extractive_match", "mc2", "0_of_5"]


@pytest.mark.parametrize("metric", HIGH)
def test_directions_that_the_name_says(metric: str, tmp_path: Path) -> None:
    assert scores(tmp_path, {"results": {"a": {f"{metric},none": 0.5}}}) == {"a": 0.5}


@pytest.mark.parametrize("metric", LOW)
def test_metrics_where_lower_is_better_are_refused_without_a_direction_in_the_file(
    metric: str, tmp_path: Path
) -> None:
    data = {"results": {"a": {f"{metric},none": 0.5}}}
    assert f"lower is better for '{metric}'" in complaint(tmp_path, data)


@pytest.mark.parametrize("metric", UNKNOWN)
def test_a_direction_that_nothing_says_is_asked_for(metric: str, tmp_path: Path) -> None:
    data = {"results": {"a": {f"{metric},none": 0.5}}}
    assert "set higher_is_better: true" in complaint(tmp_path, data)
    assert scores(tmp_path, data, higher_is_better=True) == {"a": 0.5}
    assert "lower is better" in complaint(tmp_path, data, higher_is_better=False)
    assert scores(tmp_path, {**data, "higher_is_better": {"a": {metric: True}}}) == {"a": 0.5}
    assert "lower is better" in complaint(tmp_path, {**data, "higher_is_better": {"a": {metric: False}}})


def test_error_rates_that_a_file_calls_better_where_higher(tmp_path: Path) -> None:
    for metric in ("ter", "word_perplexity", "bits_per_byte"):
        data = {"results": {"a": {f"{metric},none": 9}}, "higher_is_better": {"a": {metric: True}}}
        assert "lower is better" in complaint(tmp_path, data)
        (tmp_path / "s.csv").write_text(f"candidate,task,metric,value\nm,a,{metric},9\n")
        with pytest.raises(InputError, match="lower is better"):
            load_scores(MeasuredSource(format="csv", path=str(tmp_path / "s.csv")), CANDIDATES)


def test_a_group_has_the_direction_of_its_tasks(tmp_path: Path) -> None:
    data = {
        "results": {"g": {"quality,none": 0.5}, "a": {"quality,none": 0.4}, "b": {"quality,none": 0.6}},
        "group_subtasks": {"g": ["a", "b"]},
    }
    both = {task: {"quality": True} for task in "ab"}
    assert scores(tmp_path, {**data, "higher_is_better": both}) == {"g": 0.5}
    for mixed in ({**both, "b": {"quality": False}}, {**both, "g": {"quality": None}}):
        message = complaint(tmp_path, {**data, "higher_is_better": mixed})
        assert "whether more of 'quality' is better" in message
    assert scores(tmp_path, {**data, "higher_is_better": both}, count_by="leaves") == {"a": 0.4, "b": 0.6}


def test_files_from_before_0_4(tmp_path: Path) -> None:
    data = {
        "results": {
            "arc_easy": {"acc": 0.5, "acc_stderr": 0.01, "acc_norm": 0.6, "acc_norm_stderr": 0.01},
            "wikitext": {"word_perplexity": 20.0, "byte_perplexity": 1.7},
        },
        "versions": {"arc_easy": 0, "wikitext": 1},
        "config": {"model": "gpt2"},
    }
    assert scores(tmp_path, data, tasks=["arc_easy"], metric="acc_norm") == {"arc_easy": 0.6}
    assert "lower is better" in complaint(tmp_path, data, tasks=["wikitext"], metric="word_perplexity")
    board = {"results": {"all": {"acc": 0.55}, "harness|arc:challenge|25": {"acc": 0.5, "acc_stderr": 0.1}}}
    assert scores(tmp_path, board) == {"harness|arc:challenge|25": 0.5}


def test_numbers_written_as_texts_and_several_filters(tmp_path: Path) -> None:
    data = {"results": {"a": {"exact_match,strict-match": "0.3", "exact_match,flexible-extract": 0.4}}}
    assert scores(tmp_path, data, metric="exact_match,strict-match") == {"a": 0.3}
    for text in ("0.3_0", "０.3", "3e"):
        data["results"]["a"]["exact_match,strict-match"] = text
        assert "is not a finite number" in complaint(tmp_path, data, metric="exact_match,strict-match")


@pytest.mark.parametrize(
    "data",
    [
        '{"results": {"a": {"acc,none": 0.5, "acc,none": 0.6}}}',
        '{"results": {"a": {"acc,none": 0.5}}, "results": {}}',
        '{"doc_id": 0, "acc": 1}\n{"doc_id": 1, "acc": 0}\n',  # a samples file
        '{"results": ' + "[" * 100_000,
        {"results": []},
        {"results": {"a": [1]}},
        {"results": RESULTS, "group_subtasks": []},
        {"results": RESULTS, "group_subtasks": {"bench": None}},
        {"results": RESULTS, "groups": 5},
        {"results": RESULTS, "higher_is_better": {"bench": 5}},
        {"results": RESULTS, "group_subtasks": {"bench": [["law"]]}},
        {"results": RESULTS, "group_subtasks": {"bench": "law"}},
        {"results": RESULTS, "higher_is_better": {"bench": {"acc": "false"}}},
    ],
    ids=str,
)
def test_files_of_another_form_are_refused(data: Any, tmp_path: Path) -> None:
    assert "not a result file of lm-evaluation-harness" in complaint(tmp_path, data)


@pytest.mark.parametrize("schema", ["0.4.1", "0.4.3", "0.5, groups alone"])
def test_group_listed_in_groups_alone_counts_by_its_own_score(schema: str, tmp_path: Path) -> None:
    data = SCHEMAS[schema]
    data = {**data, "results": {task: entry for task, entry in data["results"].items() if task not in PARTS}}
    assert scores(tmp_path, data) == ASKED
    assert scores(tmp_path, data, count_by="leaves") == LEAVES


def test_group_apart_from_indented_tasks_is_not_counted_beside_them(tmp_path: Path) -> None:
    data = {"results": {task: RESULTS[task] for task in LEAVES}, "groups": GROUPS}
    assert "set count_by: leaves" in complaint(tmp_path, data)
    assert scores(tmp_path, data, count_by="leaves") == LEAVES


@pytest.mark.parametrize("key", ["quality", "quality,none"])
def test_direction_is_known_by_metric_with_and_without_filter(key: str, tmp_path: Path) -> None:
    data = {"results": {"a": {"quality,none": 0.5}}}
    assert scores(tmp_path, {**data, "higher_is_better": {"a": {key: True}}}) == {"a": 0.5}
    assert "lower is better" in complaint(tmp_path, {**data, "higher_is_better": {"a": {key: False}}})
