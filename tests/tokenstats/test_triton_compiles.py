"""The kernels compile for real GPUs, which takes none: to machine code, without spilling many registers."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from forecast.tokenstats import triton_fused, triton_logits

TYPES = {
    "*": ["hidden", "head", "bias", "logits"],
    "*fp32": ["raw_targets", "target_logits", "max_out", "sum_out", "weighted_out"],
    "*i32": ["greater_out", "equal_out", "top1_out"],
    "fp32": ["scale", "softcap"],
    "i32": ["b", "n", "v", "d", "row_stride", "hidden_stride", "head_stride", "tiles_per_stretch", "find"],
}
TARGETS = {"*fp32": triton_logits._reduce_rows, "*i32": triton_fused._reduce_products}
ALIGNED = [*TYPES["*"], "d", "row_stride", "hidden_stride", "head_stride"]
PRODUCTS = {"fp32": tl.float32, "bf16": tl.bfloat16, "fp16": tl.float16}


def compiled(kernel: Any, element: str, constants: dict[str, Any], capability: int, **options: Any) -> Any:
    """The kernel for given elements, as its launch on aligned, contiguous tensors would compile it."""
    kinds = {name: kind for kind, names in TYPES.items() for name in names}
    kinds["targets"] = next(kind for kind, one in TARGETS.items() if one is kernel)
    signature = {
        name: "constexpr"
        if name in constants
        else kinds[name].replace("*", f"*{element}", kinds[name] == "*")
        for name in kernel.arg_names
    }
    return triton.compile(
        ASTSource(
            kernel,
            signature,
            constexprs=constants,
            attrs={
                (i,): [["tt.divisibility", 16]]
                for i, name in enumerate(kernel.arg_names)
                if name in ALIGNED and name not in constants
            },
        ),
        target=GPUTarget("cuda", capability, 32),
        options={**options, "enable_fp_fusion": False},
    )


def resources(kernel: Any, folder: Path) -> dict[str, int]:
    """Registers of a thread, and the bytes of stack and local memory that it spills to."""
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    done = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {name: int(size) for name, size in re.findall(r"(REG|STACK|LOCAL):(\d+)", done.stdout)}
    return found | {"SHARED": kernel.metadata.shared}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path) -> Any:
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path / "triton")
        yield


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("element", "transform"), [("fp32", True), ("bf16", False), ("bf16", True)])
def test_logits_kernel(capability: int, element: str, transform: bool, tmp_path: Path) -> None:
    kernel = compiled(
        triton_logits._reduce_rows,
        element,
        {
            "column_stride": 1,
            "HAS_SCALE": transform,
            "HAS_SOFTCAP": transform,
            "C": triton_logits.TILE_COLUMNS,
        },
        capability,
        num_warps=triton_logits.NUM_WARPS,
    )
    used = resources(kernel, tmp_path)
    assert used["STACK"] <= 8 and used["LOCAL"] == 0 and used["REG"] <= 128, used


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("element", "transform"), [("fp32", True), ("bf16", True), ("fp16", False)])
def test_fused_kernel(capability: int, element: str, transform: bool, tmp_path: Path) -> None:
    tile = triton_fused.FLOAT_TILE if element == "fp32" else triton_fused.HALF_TILE
    constants = {"HAS_BIAS": transform, "HAS_SCALE": transform, "HAS_SOFTCAP": transform}
    constants |= {"hidden_inner": 1, "head_inner": 1, "PRODUCT": PRODUCTS[element]}
    constants |= {"R": tile.rows, "C": tile.columns, "K": tile.inner}
    kernel = compiled(
        triton_fused._reduce_products,
        element,
        constants,
        capability,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    used = resources(kernel, tmp_path)
    assert used["STACK"] <= 16 and used["LOCAL"] == 0 and used["SHARED"] <= 96 << 10, used
    products = re.findall(r"wgmma\.mma_async|mma\.sync", kernel.asm["ptx"])
    expected = {"wgmma.mma_async"} if capability == 90 else {"mma.sync"}
    assert set(products) == (set() if element == "fp32" else expected)  # fp32 is multiplied exactly
    # Both launches, with and without `find`, must be this one kernel; see the module.
    (find,) = [one for one in triton_fused._reduce_products.params if one.name == "find"]
    assert find.do_not_specialize


def test_sizes_of_one_compile_too(tmp_path: Path) -> None:
    ones: dict[str, Any] = dict.fromkeys(["b", "v", "row_stride", "column_stride", "tiles_per_stretch"], 1)
    ones |= {"HAS_SCALE": False, "HAS_SOFTCAP": False, "C": 16}
    assert compiled(triton_logits._reduce_rows, "fp32", ones, 90).asm["cubin"]
    sizes = ["n", "v", "d", "hidden_stride", "hidden_inner", "head_stride", "head_inner", "tiles_per_stretch"]
    ones = dict.fromkeys(sizes, 1)
    ones |= {"HAS_BIAS": True, "HAS_SCALE": False, "HAS_SOFTCAP": False, "PRODUCT": tl.bfloat16}
    ones |= {"R": 16, "C": 16, "K": 16}
    assert compiled(triton_fused._reduce_products, "bf16", ones, 90).asm["cubin"]
