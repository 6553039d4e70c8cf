"""Prometheus metrics of a run: bounded in number, and served by Ray as the status record says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.util.metrics import Gauge
from watched import plan_of

from actors.prometheus import MOST_CANDIDATES, OTHERS, Metrics, label, series
from forecast.runs.status import RunStatus
from forecast.runs.status_file import read_runs


def record(name: str, **fields: Any) -> dict[str, Any]:
    known = {"units": 4, "committed": 1, "tokens_read": 10, "retries": 2}
    return {"candidate": name, **known, "tokens_per_second": 5.0, "seconds_left": None, **fields}


def test_prometheus_labels_are_ascii_and_short() -> None:
    assert label('3-bit, {a}="b"') == '3-bit, {a}="b"'
    assert label("übel 模型") == "\\xfcbel \\u6a21\\u578b"
    assert len(label(1000 * "é")) == 120
    assert label('a"} 1\n\x1b[31m\x00\ud800') == 'a"} 1 \\x1b[31m\\x00\\ud800'


def test_prometheus_series_are_bounded() -> None:
    found = series(record(str(i)) for i in range(MOST_CANDIDATES + 50))
    assert len(found) == MOST_CANDIDATES + 1
    others = found[OTHERS]
    assert (others["units"], others["committed"], others["tokens_read"]) == (200, 50, 500)
    assert others["tokens_per_second"] is None and others["seconds_left"] is None
    assert found["7"] == {k: v for k, v in record("7").items() if k != "candidate"}
    # Names that are one label, and one that takes the name of the rest, are added up, not overwritten.
    long = [record(200 * "x" + end) for end in ("a", "b")]
    rest = series([record(OTHERS), *long])[OTHERS]
    assert (rest["units"], rest["tokens_per_second"]) == (8, None)


def test_refused_metric_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Gauge, *_: object) -> None:
        raise RuntimeError("no connection")

    monkeypatch.setattr(Gauge, "set", refuse)
    told: list[str] = []
    metrics = Metrics(RunStatus(plan_of(tmp_path, {"a": 5}), ()), told.append)
    for _ in range(3):
        metrics.beat()
    metrics.close()
    assert len(told) == 1 and "no connection" in told[0] and "scoring continues" in told[0]


# A run with the connection kept until Ray has served its last numbers; then who listens where.
RUN = """
import json, sys, time, urllib.request
import psutil, ray
from actors.cluster import connected
from actors.scheduler import score_plan
from forecast.api.subscribers import watched
from forecast.config.loader import load_config
from forecast.plan import make_plan
from forecast.runs.status import RunStatus

plan = make_plan(load_config(sys.argv[1]))
done = plan.done()
waiting = [u for u in plan.units if u.address not in done]
with connected(plan.config.cluster):
    (node,) = ray.nodes()
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    status = RunStatus(plan, done, plan.failures)
    with watched(status) as subscriber:
        score_plan(plan, waiting, subscriber)
    deadline = time.monotonic() + 60
    while True:
        time.sleep(0.5)
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        ours = [line for line in text.splitlines() if line.startswith("ray_forecast_")]
        if any(line.startswith("ray_forecast_run_seconds_left") and line.endswith(" 0.0") for line in ours):
            break
        assert time.monotonic() < deadline, text
    me = psutil.Process()
    listening = [
        f"{p.name()} {c.laddr.ip}"
        for p in (me, *me.children(recursive=True))
        for c in p.net_connections("inet")
        if c.status == "LISTEN"
    ]
print(json.dumps({"metrics": ours, "listening": listening}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run lies."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def answer(folder: Path) -> dict[str, Any]:
    """What Ray served, and who listened where."""
    rows = [{"prompt": f"What is {i}?", "solution": f" It is {i}."} for i in range(12)]
    (folder / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    candidates = {"é good": "fake://1?delay=0.2", "bad": "fake://2?fail=load", "other": "fake://3?delay=0.2"}
    config = {
        "name": "mêtrics",
        "output": "out",
        "engine": {"kind": "fake"},
        "shard_trajectories": 2,
        "cluster": {"actors": 2},
        "candidates": [{"name": name, "source": source} for name, source in candidates.items()],
        "trajectories": [{"task": "t", "path": "solutions.jsonl"}],
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    environment = {**os.environ, "RAY_metrics_report_interval_ms": "500"}
    run = [sys.executable, "-c", RUN, str(folder / "run.yaml")]
    ended = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_prometheus_values_equal_the_status(answer: dict[str, Any], folder: Path) -> None:
    served: dict[tuple[str, str], float] = {}
    for line in answer["metrics"]:
        name, labels, value = re.fullmatch(r"ray_(\w+)\{(.*)\} (\S+)", line).groups()  # type: ignore[union-attr]
        tags = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
        assert tags["run"] == r"m\\xeatrics"
        served[name, tags.get("candidate", "")] = float(value)

    (status,) = read_runs(str(folder / "out"))
    assert status["state"] == "done"
    expected: dict[tuple[str, str], float] = {
        ("forecast_candidates_failed", ""): 1.0,
        ("forecast_run_seconds_left", ""): 0.0,
        ("forecast_run_tokens_per_second", ""): status["tokens_per_second"],
    }
    for own in status["candidates"]:
        name = own["candidate"].replace("é", r"\\xe9")
        values = {
            "forecast_units_total": own["units"],
            "forecast_units_committed": own["committed"],
            "forecast_tokens_per_second": own["tokens_per_second"],
            "forecast_seconds_left": own["seconds_left"],
            "forecast_tokens_read_total": own["tokens_read"] or None,
            "forecast_retries_total": own["retries"] or None,
        }
        expected |= {(metric, name): value for metric, value in values.items() if value is not None}
    assert served == pytest.approx(expected)
    assert served["forecast_units_committed", r"\\xe9 good"] == 6
    assert ("forecast_tokens_per_second", "bad") not in served, "what is not known is not served"


@pytest.mark.slow
def test_local_ray_listens_on_loopback_only(answer: dict[str, Any]) -> None:
    assert len(answer["listening"]) > 3
    ours = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert not [place for place in answer["listening"] if place.split()[-1] not in ours]
