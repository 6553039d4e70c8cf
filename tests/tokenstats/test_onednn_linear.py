"""fp32 products on CPUs: the same numbers to rounding, whichever library makes them."""

import pytest
import torch
from torch import nn

from forecast.tokenstats import onednn_linear as module
from forecast.tokenstats.onednn_linear import linear, prefers_onednn, speed_up


@pytest.fixture(params=[True, False], ids=["oneDNN", "torch's choice"], autouse=True)
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(module, "_onednn_is_faster", lambda: request.param)


@pytest.mark.parametrize("shape", [(1, 5), (255, 123), (3, 7, 64), (0, 5), (2, 0, 5), (17, 1)])
@pytest.mark.parametrize("with_bias", [True, False])
@torch.inference_mode()
def test_equals_fp64(shape: tuple[int, ...], with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(shape, generator=generator)
    weight = torch.randn(507, shape[-1], generator=generator)
    bias = torch.randn(507, generator=generator) if with_bias else None
    expected = inputs.double() @ weight.double().T + (0 if bias is None else bias.double())
    torch.testing.assert_close(linear(inputs, weight, bias), expected.float(), rtol=1e-5, atol=1e-4)
    assert linear(inputs, weight, bias).shape == (*shape[:-1], 507)


@torch.inference_mode()
def test_views_and_transposes() -> None:
    inputs, weight = torch.randn(6, 9, 32).transpose(0, 1), torch.randn(40, 64)[3:30, ::2]
    expected = (inputs.double() @ weight.double().T).float()
    torch.testing.assert_close(linear(inputs, weight), expected, rtol=1e-5, atol=1e-4)


@torch.inference_mode()
def test_infinities_and_nan_pass_through() -> None:
    inputs, weight = torch.randn(4, 8), torch.randn(5, 8)
    inputs[1, 2], inputs[2, 3] = torch.nan, torch.inf
    product = linear(inputs, weight)
    assert product[1].isnan().all() and not product[2].isfinite().any() and product[[0, 3]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_left_to_torch(dtype: torch.dtype) -> None:
    inputs, weight = torch.randn(4, 8, dtype=dtype), torch.randn(5, 8, dtype=dtype)
    assert not prefers_onednn(inputs, weight)
    assert torch.equal(linear(inputs, weight), nn.functional.linear(inputs, weight))


@torch.inference_mode()
def test_a_model_that_is_sped_up() -> None:
    class Other(nn.Linear):
        """A kind of layer with a forward pass of its own."""

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) + 1

    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16, bias=False), Other(16, 3))
    inputs = torch.randn(5, 8)
    before = model(inputs)
    speed_up(model)
    torch.testing.assert_close(model(inputs), before, rtol=1e-5, atol=1e-5)
    assert ("forward" in vars(model[0])) == prefers_onednn(inputs, inputs)
    assert "forward" not in vars(model[3])
    assert "forward" not in vars(nn.Linear(2, 2))
