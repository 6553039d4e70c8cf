"""The document shows what the record says: same numbers, a dash for what is missing, names as they are."""

import io
import re
from dataclasses import replace

from rich.console import Console

from forecast.analysis.parity.compare import ParityResult
from forecast.analysis.parity.ranking_effects import (
    Effects,
    Order,
    ProxyCell,
    ProxyParity,
    RhoChange,
    Standing,
    TargetParity,
)
from forecast.analysis.parity.report import document
from forecast.analysis.parity.token_diff import UNITS, Place, RankDisagreements, TokenDifference, TokenParity
from forecast.proxies.token_proxies import PROXIES
from forecast.report import html, terminal
from forecast.report.format import MISSING

PLACE = Place("[b]m[/b]", "t", "x", "i:smile:", 4, 7, "\x1b\n", -1.25, -3.75)
DIFFERENCES = tuple(
    TokenDifference(name, unit, 2.5, 0.0, 0.125, 1.75, -0.5, 9, PLACE if name == "logprob" else None)
    for name, unit in UNITS.items()
)
ALL = TokenParity(None, 20_000, 8, DIFFERENCES, RankDisagreements(30, 20, 10, 1), 0, 20_000)
SIDE = {"label": "torch, float32", "devices": ["cpu"]}


def effects(pairs: int) -> Effects:
    at = ProxyCell("[b]m[/b]", "t", 4.0, 5.0)
    proxies = tuple(
        ProxyParity(
            proxy.name, proxy.metric.name, proxy.weighting.name, 1.0, 0.5, at,
            0.25 if proxy.weighting.name == "entropy" else 0.0, 0.0, at,
            None if pairs < 3 else 0.9, None if pairs < 3 else 0.8, 1 if pairs else 0, 0,
        )
        for proxy in PROXIES
    )  # fmt: skip
    standings = tuple(Standing(f"c{i}", float(i), float(3 - i)) for i in ((1, 2) if pairs else (1,)))
    rhos = tuple(RhoChange(proxy.name, 0.5, None if k == 1 else 0.75) for k, proxy in enumerate(PROXIES))
    target = TargetParity("exam", ("t",), 5, rhos, PROXIES[1].name, None)
    return Effects({"t": 3}, pairs, proxies, (Order("rank__uniform", standings),), (target,))


def parity(pairs: int = 3) -> ParityResult:
    one = replace(ALL, candidate="[b]m[/b]")
    parts = (one, replace(one, candidate="other")) if pairs else (one,)
    return ParityResult("small", SIDE, SIDE, ALL, parts, effects(pairs), 2.0, ("take care",), ())


def printed(found: ParityResult) -> str:
    stream = io.StringIO()
    Console(file=stream, width=250).print(terminal.render(document(found)))
    return stream.getvalue()


def cells(text: str, name: str) -> list[str]:
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in text.splitlines()]
    return next(row for row in rows if row and row[0] == name)


def test_statistics_and_ranks() -> None:
    text = printed(parity())
    assert "20,000 tokens of 8 scored instances by 2 candidates" in text
    row = cells(text, "logprob")
    assert row[:8] == ["logprob", "nats", "2.5", "1.75", "0.125", "0", "-0.5", "0.04%"]
    assert row[8] == r"[b]m[/b], t/i:smile: #4 '\x1b\n': -1.25 → -3.75"
    assert cells(text, "ties")[8] == MISSING
    assert "ranks differ at 30 tokens (0.15%): 20 explained by ties, 10 real" in text
    assert "first choice in one setup only: 1 (0.01%)" in text
    assert "tokens with ties: 0% → 100%" in text
    assert "\x1b" not in text
    assert cells(text, "other")[1:3] == ["20,000", "2.5"]


def test_effects_and_verdict() -> None:
    text = printed(parity())
    row = cells(text, "margin")
    assert row == ["margin", "0", "0", "25%", "entropy", "[b]m[/b], t: 4 → 5", "+0.800", "1"]
    assert "most swapped of 3 pairs" in text
    assert "order by rank × uniform: 2 of 2 change place: c1 (1 → 2), c2 (2 → 1)" in text
    row = cells(text, "exam")
    assert row == [
        "exam",
        "t",
        "5",
        "+0.500 → +0.750",
        "cross_entropy × probability +0.500 → –",
        MISSING,
        row[6],
    ]
    assert row[6].endswith("+0.500 → +0.750"), "the proxy whose rho changes most"
    assert text.index("Token statistics") < text.index("note: take care") < text.index("beyond the tolerance")
    assert "beyond the tolerance of 2 nats: a logprob differs by 2.5 ([b]m[/b], t/i:smile: #4" in text
    assert "None" not in text and "nan" not in text


def test_one_candidate_has_no_order() -> None:
    text = printed(replace(parity(0), tolerance=2.5))
    assert "by 1 candidate;" in text
    assert not re.search("order|swapped|tau-b|Per candidate", text)
    assert "within the tolerance: no logprob differs by more than 2.5 nats" in text


def test_without_a_common_text_there_are_no_proxies() -> None:
    text = printed(replace(parity(), effects=None, tolerance=None))
    assert "80 proxies" not in text and "tolerance" not in text


def test_frames_and_page() -> None:
    found = replace(parity(), failed=({"setup": "both", "error": "<b>broken</b>"},))
    frames = found.frames()
    assert frames["proxies"].height == 80 and frames["rhos"].height == 80
    assert frames["orders"].rows() == [("rank__uniform", "c1", 1.0, 2.0), ("rank__uniform", "c2", 2.0, 1.0)]
    assert frames["candidates"]["candidate"].to_list() == [None, "[b]m[/b]", "other"]
    assert frames["statistics"].row(0, named=True)["at_position"] == 4
    empty = replace(found, effects=None).frames()
    assert empty["proxies"].is_empty() and empty["proxies"].schema == frames["proxies"].schema
    page = html.render(document(found))
    assert "Every proxy" in page and "&lt;b&gt;broken&lt;/b&gt;" in page and "None" not in page
