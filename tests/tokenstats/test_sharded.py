"""Real process groups on this machine: every rank ends with the statistics of the whole vocabulary."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tokenstats import gloo_rank
from tokenstats.cases import assert_same, integers, targets_of

from forecast.tokenstats import TokenStats, token_stats
from forecast.tokenstats.sharded import sharded_token_stats


@pytest.fixture(scope="module", params=[2, 3], ids=["2 ranks", "3 ranks"])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank of a group of that size computed."""
    folder = tmp_path_factory.mktemp("gloo")
    tests = Path(__file__).parents[1]
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}",
    }
    started = [
        subprocess.Popen(
            [sys.executable, gloo_rank.__file__, str(rank), str(request.param), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(request.param)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * request.param, "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("name", gloo_rank.cases())
def test_ranks_agree_with_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    case = gloo_rank.cases()[name]
    alone = token_stats(
        case.hidden,
        case.head[: case.vocab_size],
        case.targets,
        bias=case.bias,
        logit_scale=case.logit_scale,
        softcap=case.softcap,
    )
    for results in ranks:
        together = TokenStats(*results[name])
        if name in ("NaN on one rank", "infinity on one rank"):
            for value in (together.logprob, together.entropy, together.top1_logprob):
                assert value.isnan().all()
            continue
        assert [t.dtype for t in together] == [t.dtype for t in alone]
        assert_same(together, alone, nats=2e-6)
        for one, other in zip(together, ranks[0][name], strict=True):
            assert torch.equal(one, other)


def test_every_rank_hears_of_stretches_that_overlap(ranks: list[dict[str, Any]]) -> None:
    world = len(ranks)
    for results in ranks:
        assert "must hold each of its" in results["overlap"]
        assert f"[{100 * world - 101}, {100 * world - 1})" in results["overlap"]


@pytest.fixture
def group_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group_of_one")
def test_a_group_of_one() -> None:
    hidden, head, targets = integers(123, 16, seed=1), integers(507, 16, seed=2), targets_of(123, 507)
    together = sharded_token_stats(hidden, head, targets, start=0, vocab_size=507, budget_bytes=30_000)
    assert_same(together, token_stats(hidden, head, targets))
    with pytest.raises(ValueError, match="cannot share its targets"):
        sharded_token_stats(hidden, head, targets, start=0, vocab_size=507, path="triton_fused")
    with pytest.raises(ValueError, match=r"the ranks hold \[0, 507\) .* 508 entries once"):
        sharded_token_stats(hidden, head, targets, start=0, vocab_size=508)
    with pytest.raises(ValueError, match="outside the vocabulary of 507"):
        sharded_token_stats(hidden, head, targets + 1, start=0, vocab_size=507)
