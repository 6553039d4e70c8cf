"""The kernels' tests without a GPU, in Triton's interpreter.

It is chosen when Triton is imported, hence a process of its own. It is slow, too: the tests that go through
many combinations of dtypes and shapes run with the slow ones.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

MANY = "entry or softcap or budget or any_logits"


@pytest.mark.parametrize(
    "chosen",
    [pytest.param(f"not ({MANY})", id="edges"), pytest.param(MANY, id="many", marks=pytest.mark.slow)],
)
def test_kernels_under_the_interpreter(chosen: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, "test_triton.py"],
        cwd=Path(__file__).parent,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
