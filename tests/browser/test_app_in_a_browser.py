"""The app in a real browser: everything is drawn, nothing complains."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import run_forecast

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Without these a browser asks its maker's servers for updates at every start.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """`forecast app` on a run of made-up candidates that are measured directly in the same run."""
    questions = "".join(
        f'{{"q": "Is {i} odd?", "options": ["yes it is", "no"], "answer": {1 - i % 2}}}\n' for i in range(6)
    )
    (tmp_path / "questions.jsonl").write_text(questions)
    solutions = "".join(f'{{"prompt": "What is {i}?", "solution": " It is {i}."}}\n' for i in range(6))
    (tmp_path / "solutions.jsonl").write_text(solutions)
    config = tmp_path / "run.yaml"
    config.write_text(
        """
name: in a browser
output: out
engine: {kind: fake}
candidates:
  - {name: weak, source: "fake://0.5"}
  - {name: fair, source: "fake://2"}
  - {name: good, source: "fake://4"}
  - {name: "[best] <b>", source: "fake://6"}
trajectories: [{task: sums, path: solutions.jsonl}]
direct_evaluation:
  - task: odd
    path: questions.jsonl
    prompt_template: "{q}"
    choices: options
    answer: answer
    answer_is: index
ranking: {bootstraps: 50, permutations: 50}
"""
    )
    code, _, err = run_forecast("run", config)
    assert code == 0, err
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "forecast.cli", "app", str(config), "--port", str(port)],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url + "/_stcore/health")
        yield url
    finally:
        os.killpg(server.pid, 15)  # the command and the server that it started
        server.wait(timeout=30)


def test_page_is_drawn_and_nothing_complains(address: str) -> None:
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        page.get_by_role("heading", name="in a browser").wait_for(timeout=60_000)
        page.get_by_text("Spearman's rho of all 80 proxies").wait_for(timeout=60_000)
        page.locator("[data-testid=stDataFrame] canvas").first.wait_for()
        charts = page.locator("[data-testid=stVegaLiteChart]")
        charts.nth(1).locator("canvas, svg").first.wait_for()
        assert charts.count() == 2
        for chart in charts.all():
            box = chart.bounding_box()
            assert box is not None and box["width"] > 300 and box["height"] > 200
        assert page.get_by_text("n = 4 candidates and 6 questions").count() == 1
        assert page.locator("[data-testid=stException]").count() == 0
        browser.close()
    assert not complaints, [url for url in requests if not url.startswith(address)]
    assert all(url.startswith((address, address.replace("http", "ws"), "data:", "blob:")) for url in requests)


def _wait(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the app did not start within a minute"
            time.sleep(0.2)
