"""The sums behind a run's status: of one candidate, or of the whole run. Times are seconds of one clock."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

CandidateState = Literal["waiting", "scoring", "done", "failed"]

_WINDOW_SECONDS = 300.0  # what "recent" means, unless fewer than so many commits lie in it
_WINDOW_COMMITS = 8
_ONE_GROUP_SECONDS = 0.1  # between commits of units that were scored together


class RecentRate:
    """Recent cost per second: in the last five minutes, or since eight commits ago if that is longer.

    It begins where the work of the first commit began: the time before, mostly loading of weights, is
    start-up and tells nothing of the work that is left.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float]] = deque()  # (seconds, cost done by then), ascending

    def add(self, at: float, cost: float, seconds: float = math.inf) -> None:
        """So much was done at `at` seconds, in the last `seconds` of them; times never go back."""
        if not self._marks:
            self._marks.append((max(0.0, at - seconds), 0.0))
        elif (
            len(self._marks) == 2 and at - self._marks[1][0] < _ONE_GROUP_SECONDS
        ):  # scored one after another
            self._marks[0] = (max(0.0, self._marks[0][0] - seconds), 0.0)
        mark = (at, self._marks[-1][1] + cost)
        if len(self._marks) > 1 and at - self._marks[-2][0] < 1.0:  # bounds the memory of a fast run
            self._marks[-1] = mark
        else:
            self._marks.append(mark)
        while len(self._marks) > _WINDOW_COMMITS + 1 and self._marks[1][0] <= at - _WINDOW_SECONDS:
            self._marks.popleft()

    def rate(self, now: float) -> float | None:
        """Cost per second; None before anything is done."""
        if not self._marks:
            return None
        (start, before), (_, done) = self._marks[0], self._marks[-1]
        return (done - before) / (now - start) if done > before and now > start else None


@dataclass
class Account:
    """What is known of one candidate, or of the whole run."""

    units: int = 0
    already_done: int = 0  # before this run
    committed: int = 0  # in the lake, already done ones included
    tokens_read: int = 0  # in this run
    retries: int = 0
    cost_left: float = 0.0
    flying: int = 0  # units that are with an actor
    since: float = 0.0  # when `flying` was last 0
    worked: float = 0.0  # seconds with `flying` > 0, before `since`
    pace: RecentRate = field(default_factory=RecentRate)

    def plan(self, cost: float, done: bool) -> None:
        self.units += 1
        self.already_done += done
        self.committed += done
        self.cost_left += 0.0 if done else cost

    def begin(self, now: float) -> None:
        if not self.flying:
            self.since = now
        self.flying += 1

    def end(self, now: float) -> None:
        self.flying -= 1
        if not self.flying:
            self.worked += now - self.since

    def seconds(self, now: float) -> float:
        """Seconds in which it was being scored."""
        return self.worked + (now - self.since if self.flying else 0.0)

    def commit(self, tokens: int, cost: float, seconds: float, now: float) -> None:
        """Args: seconds: that the scoring took, without start-up."""
        self.committed += 1
        self.tokens_read += tokens
        self.cost_left -= cost
        self.pace.add(self.seconds(now), cost, seconds)

    def complete(self) -> bool:
        return self.committed >= self.units

    def tokens_per_second(self, now: float) -> float | None:
        seconds = self.seconds(now)
        return self.tokens_read / seconds if self.tokens_read and seconds > 0 else None

    def seconds_left(self, now: float, at_work: bool) -> float | None:
        if self.complete():
            return 0.0
        rate = self.pace.rate(self.seconds(now)) if at_work else None
        return None if rate is None else max(0.0, self.cost_left) / rate

    def record(self, now: float, at_work: bool) -> dict[str, Any]:
        return {
            "units": self.units,
            "committed": self.committed,
            "already_done": self.already_done,
            "tokens_read": self.tokens_read,
            "tokens_per_second": rounded(self.tokens_per_second(now)),
            "seconds_left": rounded(self.seconds_left(now, at_work)),
            "retries": self.retries,
        }


@dataclass
class CandidateAccount(Account):
    names: tuple[str, ...] = ()  # several where one model is listed twice
    error: str | None = None

    def state(self) -> CandidateState:
        if self.error is not None:
            return "failed"
        if self.complete():
            return "done"
        return "scoring" if self.flying else "waiting"

    def candidate_record(self, candidate_id: str | None, now: float) -> dict[str, Any]:
        name, *others = self.names
        state = self.state()
        identity = {"candidate": name, "also": others, "candidate_id": candidate_id, "state": state}
        return {**identity, **self.record(now, state == "scoring"), "error": self.error}


def rounded(number: float | None) -> float | None:
    """To milliseconds and the like; None stays None."""
    return None if number is None else round(number, 3)
