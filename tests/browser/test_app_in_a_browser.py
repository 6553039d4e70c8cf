"""The app in a real browser: everything is drawn, nothing complains, results appear by themselves."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
CONFIG = """
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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a finished run of made-up candidates that are measured in the same run."""
    folder = tmp_path_factory.mktemp("run")
    questions = "".join(
        f'{{"q": "Is {i} odd?", "options": ["yes it is", "no"], "answer": {1 - i % 2}}}\n' for i in range(6)
    )
    (folder / "questions.jsonl").write_text(questions)
    solutions = "".join(f'{{"prompt": "What is {i}?", "solution": " It is {i}."}}\n' for i in range(6))
    (folder / "solutions.jsonl").write_text(solutions)
    config = folder / "run.yaml"
    config.write_text(CONFIG)
    code, _, err = run_forecast("run", config)
    assert code == 0, err
    return config


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    """The app on that run."""
    with serving(run) as url:
        yield url


@contextmanager
def serving(config: Path) -> Iterator[str]:
    """`forecast app` on a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "forecast", "app", str(config), "--port", str(port)],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(url + "/_stcore/health", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the app did not start within a minute"
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(server.pid, 15)  # the command and the server that it started
        server.wait(timeout=30)


@dataclass
class Visit:
    """An open page, and what went wrong on it."""

    page: Any
    address: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Nothing was complained about, and no request left the machine."""
        assert not self.complaints
        own = (self.address, self.address.replace("http", "ws"), "data:", "blob:")
        assert [url for url in self.requests if not url.startswith(own)] == []
        assert self.page.locator("[data-testid=stException]").count() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def visit(browser: Any, address: str, theme: str = "light") -> Visit:
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=theme)
    found = Visit(page, address)
    page.on("console", lambda m: found.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))  # a chart that cannot be drawn
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(address)
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_drawn_and_nothing_complains(browser: Any, address: str, theme: str) -> None:
    opened = visit(browser, address, theme)
    page = opened.page
    page.get_by_role("heading", name="in a browser").wait_for(timeout=60_000)
    page.locator("[data-testid=stDataFrame] canvas").first.wait_for()
    charts = page.locator("[data-testid=stVegaLiteChart]")
    charts.nth(1).locator("svg").wait_for()
    assert charts.count() == 2
    for chart in charts.all():
        box = chart.bounding_box()
        assert box is not None and box["width"] > 300 and box["height"] > 200
    drawn = charts.nth(0).locator("svg").text_content()
    assert "[best] <b>" in drawn and "good" in drawn
    assert charts.nth(0).locator("[aria-roledescription=circle]").count() == 4
    assert charts.nth(1).locator(".role-mark.mark-text text").count() == 80
    assert page.get_by_text("n = 4 candidates, 6 questions", exact=False).count() >= 1
    assert page.get_by_text("selected post hoc").count() == 1
    opened.check()
    page.close()


def test_choosing_a_proxy_draws_another_picture(browser: Any, address: str) -> None:
    opened = visit(browser, address)
    page = opened.page
    charts = page.locator("[data-testid=stVegaLiteChart]")
    charts.nth(1).locator("svg").wait_for(timeout=60_000)
    page.set_viewport_size({"width": 1280, "height": 1800})  # a list closes when its page has to scroll
    # The list holds only the options in sight, so one types to get to the last; while it narrows, it is drawn
    # anew, and a click may hit what is gone a moment later.
    metric = page.get_by_role("combobox", name="Metric of a token")
    metric.fill("wrong_conf")
    page.get_by_role("option", name="wrong_confidence").wait_for()
    metric.press("Enter")
    charts.nth(0).get_by_text("wrong_confidence ×").wait_for()
    opened.check()
    page.close()


def test_ranking_can_be_taken_away(browser: Any, address: str) -> None:
    opened = visit(browser, address)
    page = opened.page
    button = page.get_by_role("button", name="Ranking as CSV")
    button.wait_for(timeout=60_000)
    with page.expect_download() as download:
        button.click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("rank,candidate,family,parameters,")
    assert len(lines) == 5
    opened.check()
    page.close()


def test_results_appear_by_themselves(browser: Any, run: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    for name in ("run.yaml", "questions.jsonl", "solutions.jsonl"):
        shutil.copy(run.with_name(name), tmp_path / name)
    with serving(config) as url:
        opened = visit(browser, url)
        opened.page.get_by_text("forecast run CONFIG").wait_for(timeout=60_000)
        (tmp_path / "out").mkdir()
        shutil.copy(run.with_name("out") / "warehouse.duckdb", tmp_path / "aside")
        (tmp_path / "aside").rename(tmp_path / "out" / "warehouse.duckdb")
        opened.page.get_by_role("heading", name="in a browser").wait_for(timeout=30_000)
        opened.check()
        opened.page.close()
