"""Who follows a run while it scores: its files, the metrics of Ray, and what the caller gives."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from forecast.api.arguments import ignore

if TYPE_CHECKING:
    from forecast.runs.events import Subscriber
    from forecast.runs.status import RunStatus

# `event` names it. `released` comes with a count, `setup` with a label, `failed` and `trouble` with an error;
# the others are the lines of OUTPUT/runs/RUN.log.jsonl, see `forecast.runs.event_log`.
Event = dict[str, Any]
OnEvent = Callable[[Event], None]
Show = Callable[["RunStatus"], AbstractContextManager["Subscriber"]]


@contextmanager
def watched(
    status: "RunStatus", on_event: OnEvent | None = None, show: Show | None = None
) -> "Iterator[Subscriber]":
    """All subscribers of a run: its files, the metrics of Ray, and those given; how it ended is recorded.

    `FORECAST_STATUS_FILE` names one more place for the status (`actors.jobs.entrypoint` sets it).
    """
    from actors.prometheus import Metrics
    from forecast.runs.event_log import RunLog, log_file
    from forecast.runs.events import Subscriber, Subscribers
    from forecast.runs.status_file import StatusFile

    tell = on_event or ignore

    def trouble(text: str) -> None:
        tell({"event": "trouble", "error": text})

    also = [path] if (path := os.environ.get("FORECAST_STATUS_FILE")) else []
    file, sink = StatusFile(status, also, trouble), log_file(status, trouble)
    metrics = Metrics(status, trouble)
    sinks = [sink] if on_event is None else [lambda line: tell(json.loads(line)), sink]
    log = RunLog(status, sinks)
    try:
        with nullcontext(Subscriber()) if show is None else show(status) as shown:
            yield Subscribers([status, log, file, metrics, shown])
        status.ended("done")
    except KeyboardInterrupt:
        status.ended("interrupted", "interrupted; run the same command again to resume")
        raise
    except BaseException as error:
        status.ended("failed", str(error) or type(error).__name__)
        raise
    finally:
        for subscriber in (log, sink, file, metrics):
            subscriber.close()
