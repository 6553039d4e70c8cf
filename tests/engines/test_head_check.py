"""What an output head may do that ours does not: found by trying, however small its logits are."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from forecast.engines.head_check import HEAD_TOLERANCE, head_difference

Change = Callable[[torch.Tensor], torch.Tensor]


class Toy(nn.Module):
    """A body, a head, and what its family does to logits; the head is called, or its weight taken."""

    def __init__(
        self, change: Change, dtype: torch.dtype, called: bool = True, past_body: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
        self.to(dtype)
        self.change, self.called, self.past_body = change, called, past_body
        self.base_model = Body(self.body)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        hidden = self.body(input_ids) if self.past_body else self.base_model(input_ids=input_ids)[0]
        logits = self.head(hidden) if self.called else nn.functional.linear(hidden, self.head.weight)
        return SimpleNamespace(logits=self.change(logits))


class Body(nn.Module):
    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> tuple[torch.Tensor]:
        return (self.embedding(input_ids),)


def difference(model: Toy) -> float:
    with torch.inference_mode():
        return head_difference(
            model,
            torch.arange(8)[None],
            lambda hidden: nn.functional.linear(hidden, model.head.weight).float(),
            lambda logits: logits,
        )


DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("past_body", [True, False])
def test_plain_head_differs_by_rounding_alone(dtype: torch.dtype, called: bool, past_body: bool) -> None:
    assert difference(Toy(lambda logits: logits, dtype, called, past_body)) <= HEAD_TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cap", [5.0, 30.0, 100.0])
def test_soft_cap_shows_though_the_logits_are_small(cap: float, dtype: torch.dtype) -> None:
    found = difference(Toy(lambda logits: torch.tanh(logits / cap) * cap, dtype))
    assert found > 10 * HEAD_TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize(
    "change", [lambda x: x * 1.03, lambda x: x + 0.1 * torch.arange(50)], ids=["scale", "bias"]
)
def test_scale_and_bias_show_in_the_logits_as_they_are(
    change: Change, called: bool, dtype: torch.dtype
) -> None:
    assert difference(Toy(change, dtype, called)) > 2 * HEAD_TOLERANCE[dtype]
