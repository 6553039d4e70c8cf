"""Made-up inputs for the statistics, and the comparison with the plain definitions.

Where a test needs the same logits whatever the order of summation, all factors are small integers.
"""

import torch

from forecast.tokenstats import TokenStats

DTYPES = [torch.float32, torch.float32, torch.int32, torch.int32, torch.float32, torch.int32]

# fp32 sums of a thousand terms; logits up to about 60.
NATS = 2e-5


def integers(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).to(dtype)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def targets_of(n: int, v: int) -> torch.Tensor:
    """Ids from all over the vocabulary, the first and the last among them."""
    return torch.linspace(0, v - 1, n).round().long()


def assert_same(fast: TokenStats, plain: TokenStats, nats: float = NATS) -> None:
    """Counts and first choices equal; nats within `nats` or a relative 1e-6."""
    torch.testing.assert_close(fast.rank.long().cpu(), plain.rank.long(), rtol=0, atol=0)
    torch.testing.assert_close(fast.ties.long().cpu(), plain.ties.long(), rtol=0, atol=0)
    torch.testing.assert_close(fast.top1_id.long().cpu(), plain.top1_id.long(), rtol=0, atol=0)
    for name in ("logprob", "entropy", "top1_logprob"):
        torch.testing.assert_close(
            getattr(fast, name).double().cpu(),
            getattr(plain, name).double(),
            rtol=1e-6,
            atol=nats,
            equal_nan=True,
            msg=lambda m, n=name: f"{n}: {m}",
        )
