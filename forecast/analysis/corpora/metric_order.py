"""Which of several metrics is named where nothing else tells them apart."""

from forecast.proxies.metric_direction import is_accuracy, is_generic_loss
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY


def plainness(metric: str) -> tuple[bool, bool, bool, int, str]:
    """To sort by: cross-entropy first, per byte where there is one; then other losses; accuracies last."""
    plain = metric.removeprefix("byte_") == PLAIN_CROSS_ENTROPY
    return (
        is_accuracy(metric),
        not plain and not is_generic_loss(metric),
        not plain,
        -int(metric.startswith("byte_")),
        metric,
    )
