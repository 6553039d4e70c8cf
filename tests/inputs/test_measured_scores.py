"""Measured scores: what is read from CSV and lm-evaluation-harness, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from forecast.config.candidates import CandidateConfig
from forecast.config.sources import MeasuredSource
from forecast.errors import InputError
from forecast.inputs.measured_scores import LoadedScores, MeasuredScore, load_scores

CANDIDATES = [CandidateConfig(name=name, source="fake://1") for name in ("small", "large")]
HEADER = "candidate,task,metric,value,stderr,source\n"
RESULTS: dict[str, Any] = {
    "results": {
        "hellaswag": {
            "alias": "hellaswag",
            "sample_len": 10042,
            "acc,none": 0.25,
            "acc_stderr,none": 0.004,
            "acc_norm,none": 0.5,
            "acc_norm_stderr,none": "N/A",
        },
        "arc_easy": {
            "alias": "arc_easy",
            "acc,none": 1,
            "acc_norm,none": 0.75,
            "acc_norm_stderr,none": 0.01,
        },
    },
    "higher_is_better": {"hellaswag": {"acc": True, "acc_norm": True}},
}


def from_csv(folder: Path, text: str, **settings: Any) -> list[MeasuredScore]:
    path = folder / "scores.csv"
    path.write_text(text)
    return list(load_scores(MeasuredSource(format="csv", path=str(path), **settings), CANDIDATES).scores)


def from_lm_eval(folder: Path, results: Any, **settings: Any) -> list[MeasuredScore]:
    path = folder / "results.json"
    path.write_text(results if isinstance(results, str) else json.dumps(results))
    keys = {"candidate": "small", **settings}
    return list(load_scores(MeasuredSource(format="lm_eval", path=str(path), **keys), CANDIDATES).scores)


def csv_complaint(folder: Path, text: str, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        from_csv(folder, text, **settings)
    return str(caught.value)


def lm_eval_complaint(folder: Path, results: Any, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        from_lm_eval(folder, results, **settings)
    return str(caught.value)


def test_csv_with_and_without_what_is_optional(tmp_path: Path) -> None:
    text = HEADER + "small,quiz,acc,0.5,0.01,paper\nlarge,quiz,acc,7e-1,,\n"
    assert from_csv(tmp_path, text) == [
        MeasuredScore("small", "quiz", "acc", 0.5, 0.01, "paper"),
        MeasuredScore("large", "quiz", "acc", 0.7, None, str(tmp_path / "scores.csv")),
    ]
    (score,) = from_csv(tmp_path, "candidate,task,metric,value\nsmall,quiz,acc,0\n")
    assert (score.value, score.stderr) == (0.0, None)


@pytest.mark.parametrize("metric", ["perplexity", "loss", "nll", "bits_per_byte", "edit_error"])
def test_csv_metrics_where_lower_is_better_need_a_word(metric: str, tmp_path: Path) -> None:
    text = HEADER + f"small,t,{metric},1.5,,\n"
    assert f"lower is better for '{metric}'" in csv_complaint(tmp_path, text)
    assert from_csv(tmp_path, text, higher_is_better=True)[0].value == 1.5


@pytest.mark.parametrize("metric", ["acc_norm", "acc_norm,none"])
def test_lm_eval_with_the_metric_that_was_chosen(metric: str, tmp_path: Path) -> None:
    path = str(tmp_path / "results.json")
    assert from_lm_eval(tmp_path, RESULTS, metric=metric) == [
        MeasuredScore("small", "hellaswag", "acc_norm", 0.5, None, path),
        MeasuredScore("small", "arc_easy", "acc_norm", 0.75, 0.01, path),
    ]


def test_tasks_are_chosen_and_a_single_metric_needs_no_choice(tmp_path: Path) -> None:
    results = {
        "results": {**RESULTS["results"], "gsm8k": {"exact_match,strict-match": 0.3}, "group": {" ": " "}}
    }
    (score,) = from_lm_eval(tmp_path, results, tasks=["gsm8k"])
    assert (score.task, score.metric, score.value) == ("gsm8k", "exact_match,strict-match", 0.3)
    assert from_lm_eval(tmp_path, results, tasks=["gsm8k"], metric="exact_match") == [score]
    message = lm_eval_complaint(tmp_path, results, tasks=["gsm8"])
    assert "results.json: no scores of the task 'gsm8'; did you mean 'gsm8k'?" in message


def test_a_filter_is_chosen_by_the_metrics_whole_name(tmp_path: Path) -> None:
    results = {"results": {"gsm8k": {"exact_match,strict-match": 0.3, "exact_match,flexible-extract": 0.4}}}
    (score,) = from_lm_eval(tmp_path, results, metric="exact_match,flexible-extract")
    assert score.value == 0.4
    message = lm_eval_complaint(tmp_path, results, metric="exact_match")
    assert "set metric to one of: exact_match,strict-match, exact_match,flexible-extract" in message


def test_several_metrics_and_none_chosen_lists_them(tmp_path: Path) -> None:
    message = lm_eval_complaint(tmp_path, RESULTS)
    assert (
        f"{tmp_path}/results.json: results.hellaswag.acc,none: the task 'hellaswag' has several metrics; "
        "set metric to one of: acc, acc_norm"
    ) in message
    message = csv_complaint(tmp_path, HEADER + "small,quiz,acc,1,,\nlarge,quiz,f1,1,,\n")
    assert "scores.csv:2: the task 'quiz' has several metrics; set metric to one of: acc, f1" in message


def test_a_metric_that_a_task_lacks_lists_those_it_has(tmp_path: Path) -> None:
    message = lm_eval_complaint(tmp_path, RESULTS, metric="acc_nrm")
    assert (
        "results.hellaswag.acc,none: the task 'hellaswag' has no metric 'acc_nrm'; it has: acc, acc_norm"
        in message
    )
    assert "'arc_easy' has no metric" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "candidate,task,value\nsmall,quiz,1\n",
            ":1: no column 'metric' (needed: candidate, task, metric, value; "
            "optional: stderr, source); known: candidate, task, value",
        ),
        (
            HEADER + "smal,quiz,acc,1,,\n",
            ":2: unknown candidate 'smal'; did you mean 'small'? known: small, large",
        ),
        (HEADER + "xyz,quiz,acc,1,,\n", ":2: unknown candidate 'xyz'; known: small, large"),
        (HEADER + "small,quiz,acc,,,\n", ":2: value None is not a finite number; remove the score"),
        (
            HEADER + "small,quiz,acc,50%,,\n",
            ":2: value '50%' is not a finite number; write it without the sign",
        ),
        (HEADER + "small,quiz,acc,nan,,\n", ":2: value 'nan' is not a finite number"),
        (HEADER + "small,quiz,acc,-inf,,\n", ":2: value '-inf' is not a finite number"),
        (HEADER + "small,quiz,acc,1,x,\n", ":2: stderr 'x' is not a finite number of 0 or more"),
        (HEADER + "small,quiz,acc,1,-1,\n", ":2: stderr '-1' is not a finite number of 0 or more"),
        (HEADER + "small,,acc,1,,\n", ":2: column 'task' is null or an empty cell"),
        (HEADER + "small,quiz,acc,1,,\n" * 2, ":3: a second row for small / quiz / acc, the first is at "),
        (HEADER, ": no rows"),
    ],
)
def test_csv_rows_that_are_refused(text: str, expected: str, tmp_path: Path) -> None:
    assert f"{tmp_path}/scores.csv{expected}" in csv_complaint(tmp_path, text)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            {"results": {"a": {"acc,none": None}}},
            "results.json: results.a.acc,none: value None is not a finite",
        ),
        ({"results": {"a": {"acc,none": True}}}, "value True is not a finite number"),
        ('{"results": {"a": {"acc,none": NaN}}}', "value nan is not a finite number"),
        ({"results": {"a": {"acc,none": 1, "acc_stderr,none": "?"}}}, "stderr '?' is not a finite number"),
        (
            {"results": {"a": {"alias": "a"}}},
            "results.json: `results` has no score, i.e. no number under a key",
        ),
        (
            {"results": {"a": {"ppl,none": 9}}, "higher_is_better": {"a": {"ppl": False}}},
            "results.json: results.a.ppl,none: lower is better for 'ppl'",
        ),
        ({"scores": {}}, "results.json: not a result file of lm-evaluation-harness (KeyError('results'))"),
        ([], "results.json: not a result file of lm-evaluation-harness"),
        ({"results": {"a": 5}}, "results.json: not a result file of lm-evaluation-harness"),
        ("{", "results.json: not a result file of lm-evaluation-harness (JSONDecodeError("),
    ],
)
def test_lm_eval_results_that_are_refused(results: Any, expected: str, tmp_path: Path) -> None:
    assert expected in lm_eval_complaint(tmp_path, results)


def test_an_unknown_candidate_of_lm_eval_is_named(tmp_path: Path) -> None:
    message = lm_eval_complaint(tmp_path, RESULTS, metric="acc", candidate="larg")
    assert "unknown candidate 'larg'; did you mean 'large'?" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for form, name in (("csv", "scores.csv"), ("lm_eval", "results.json")):
        candidate = "small" if form == "lm_eval" else None
        source = MeasuredSource.model_validate(
            {"format": form, "path": str(tmp_path / name), "candidate": candidate}
        )
        with pytest.raises(InputError, match=f"{tmp_path}/{name}: no such file"):
            load_scores(source, CANDIDATES)


def test_what_is_not_chosen_is_not_checked(tmp_path: Path) -> None:
    results = {"results": {"a": {"acc,none": 0.5, "bleu,none": None}}}
    (score,) = from_lm_eval(tmp_path, results, metric="acc")
    assert score.value == 0.5


def loaded(folder: Path, text: str, **settings: Any) -> LoadedScores:
    (folder / "scores.csv").write_text(text)
    source = MeasuredSource(format="csv", path=str(folder / "scores.csv"), **settings)
    return load_scores(source, CANDIDATES)


def test_rows_of_other_models_are_left_out_with_one_note(tmp_path: Path) -> None:
    others = "".join(f"other{i},quiz,acc,9%,,\nother{i},,f1,,,\n" for i in range(5))
    found = loaded(tmp_path, HEADER + others + "small,quiz,acc,0.5,,\nlarg,quiz,acc,0.5,,\n")
    assert [(s.candidate, s.value) for s in found.scores] == [("small", 0.5)]
    (note,) = found.notes
    assert "11 rows of 6 models" in note and "other0, other1, other2, ..." in note
    assert "did you mean 'large' by 'larg'" in note


def test_first_metric_of_a_list_that_a_task_has_is_taken(tmp_path: Path) -> None:
    rows = "small,a,acc,0.1,,\nsmall,a,acc_norm,0.2,,\nlarge,a,acc,0.3,,\nsmall,b,acc,0.4,,\n"
    found = loaded(tmp_path, HEADER + rows, metric=("acc_norm", "acc"))
    assert [(s.task, s.metric, s.value) for s in found.scores] == [("a", "acc_norm", 0.2), ("b", "acc", 0.4)]
    (note,) = found.notes
    assert "no acc_norm of the task a for large" in note
    message = csv_complaint(tmp_path, HEADER + rows, metric=("f1", "em"))
    assert "has no metric 'f1' or 'em'; it has: acc, acc_norm" in message


def result_file(path: Path, value: float, model: str, *, date: float = 0.0, task: str = "quiz") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"results": {task: {"acc,none": value}}, "config": {"model_args": model}, "date": date}
    path.write_text(json.dumps(data))


MODELS = [
    CandidateConfig(name="base", source="/models/base"),
    CandidateConfig(name="base 4 bits", source="/models/base", quantize=4),
    CandidateConfig(name="step 40", source="org/run@step40"),
    CandidateConfig(name="tiny", source="package://some/tiny.gguf"),
    CandidateConfig(name="twin", source="org/twin"),
    CandidateConfig(name="twin again", source="org/twin"),
]


def from_pattern(folder: Path, **settings: Any) -> LoadedScores:
    settings = {"format": "lm_eval", "path": f"{folder}/results/**/results_*.json", **settings}
    return load_scores(MeasuredSource.model_validate(settings), MODELS)


@pytest.mark.parametrize(
    ("model", "candidate"),
    [
        ("pretrained=base", "base"),
        ("pretrained=/models/base/,dtype=float", "base"),
        ("pretrained=./models/base", "base"),
        ("pretrained=base 4 bits,load_in_4bit=True", "base 4 bits"),
        ("pretrained=org/run,revision=step40", "step 40"),
        ("pretrained=someone/tiny", "tiny"),
        ("pretrained=/models/base,peft=/adapters/one", None),
        ("pretrained=/elsewhere/base", None),
        ("pretrained=base,revision=step9", None),
        ("pretrained=org/run", None),
        ("pretrained=other/twin", None),
        ("", None),
    ],
)
def test_result_file_is_matched_to_a_candidate_by_its_model(
    model: str, candidate: str | None, tmp_path: Path
) -> None:
    result_file(tmp_path / "results" / "m" / "results_1.json", 0.5, model)
    result_file(
        tmp_path / "results" / "m" / "sub" / "results_2.json", 0.25, "pretrained=step 40", task="other"
    )
    scores = {s.candidate for s in from_pattern(tmp_path).scores if s.task == "quiz"}
    assert scores == ({candidate} if candidate else set())


def test_ambiguous_foreign_and_damaged_result_files_are_noted(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    result_file(folder / "results_base.json", 0.5, "pretrained=base")
    result_file(folder / "results_twin.json", 0.5, "pretrained=org/twin")
    result_file(folder / "results_other.json", 0.5, "pretrained=org/other")
    result_file(folder / "results_tiny.json", 0.5, "pretrained=one/tiny")
    result_file(folder / "results_tiny_2.json", 0.5, "pretrained=two/tiny")
    (folder / "results_bad.json").write_text("{}")
    result_file(folder / "samples.json", 0.5, "pretrained=base")
    found = from_pattern(tmp_path)
    assert [s.candidate for s in found.scores] == ["base"]
    notes = "\n".join(found.notes)
    for part in (
        "org/twin may be each of twin, twin again",
        "(org/other)",
        "one/tiny, two/tiny",
        "results_bad",
    ):
        assert part in notes
    with pytest.raises(InputError, match="no result of a candidate"):
        from_pattern(tmp_path, path=f"{folder}/*other.json")
    with pytest.raises(InputError, match="no file fits"):
        from_pattern(tmp_path, path=f"{folder}/*.jsonl")


def test_newest_result_of_a_task_counts_and_is_noted(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    result_file(folder / "results_a.json", 0.3, "pretrained=base", date=2.0)
    result_file(folder / "results_b.json", 0.2, "pretrained=base", date=1.0)
    result_file(folder / "results_c.json", 0.1, "pretrained=base", date=1.0, task="other")
    found = from_pattern(tmp_path, tasks=["quiz", "other"])
    assert {s.task: s.value for s in found.scores} == {"quiz": 0.3, "other": 0.1}
    (note,) = found.notes
    assert "quiz" in note and "results_a.json" in note
