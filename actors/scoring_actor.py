"""The scoring actor: holds one loaded candidate and turns units into files of the lake."""

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import ray

from actors.prefetch import Prefetcher
from forecast.config.schema import Config
from forecast.engines import Engine, load_engine
from forecast.engines.bounded_encode import warm_up
from forecast.errors import CandidateError, PassingError, fault_of
from forecast.inputs.models.resolve import Candidate
from forecast.lake.files import Receipt, write_unit
from forecast.plan import Unit
from forecast.runs.event_log import log_line
from forecast.scoring import score_units


@dataclass(frozen=True)
class Refusal:
    """The candidate's own error; `passes`: scoring it elsewhere may succeed."""

    error: str
    passes: bool = False


class ScoringActor:
    """Loads a candidate's weights once and keeps them for as long as units of it arrive."""

    def __init__(self, config: Config) -> None:
        """Args: config: the run's configuration."""
        self._config = config
        self._loaded: tuple[str, Engine] | None = None
        threads = max(1, int(config.cluster.cpus_per_actor))
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        self._threads = threads
        self._ahead = Prefetcher()
        if config.engine.kind != "fake":  # meanwhile this process imports torch
            threading.Thread(target=warm_up, daemon=True).start()
        self._node = ray.get_runtime_context().get_node_id()[:12]

    def ready(self) -> bool:
        """Answers once the process is up."""
        return True

    def score(
        self, units: Sequence[Unit], paths: Sequence[str], then: Candidate | None = None
    ) -> list[Receipt] | Refusal:
        """Score units of one candidate and write their files; repeating it writes the same files again.

        Args:
            then: the candidate that will probably come next; its weights are read ahead meanwhile.
        """
        candidate = units[0].candidate
        identity = {"candidate": candidate.name, "candidate_id": candidate.candidate_id, "node": self._node}
        try:
            engine = self._engine(units[0])
            if then is not None:  # after loading: one model at a time wants the disk
                self._ahead.start(then)
            scored = score_units(units, engine, self._config)
        except CandidateError as error:
            self._unload()  # the next try begins anew
            print(log_line("refused", **identity, error=str(error)), flush=True)
            return Refusal(str(error), isinstance(error, PassingError))
        except Exception:
            raise
        except BaseException as error:  # Ray takes a panic in Rust for the end of the process
            raise RuntimeError(fault_of(error, f"candidate {candidate.name!r}")) from None
        receipts = [
            write_unit(path, unit, one, engine.facts, self._node)
            for path, unit, one in zip(paths, units, scored, strict=True)
        ]
        done = {"task": units[0].shard.task, "shards": [unit.address for unit in units]}
        tokens = sum(receipt.tokens_read for receipt in receipts)
        print(log_line("finished", **identity, **done, tokens=tokens), flush=True)
        return receipts

    def _engine(self, unit: Unit) -> Engine:
        if self._loaded is not None:
            loaded_id, engine = self._loaded
            if loaded_id == unit.candidate.candidate_id:
                return engine
            self._unload()
        if unit.candidate.engine == "torch":
            import torch

            with contextlib.suppress(RuntimeError):  # can be set once only
                torch.set_num_threads(self._threads)
        begun = time.monotonic()
        engine = load_engine(unit.candidate, self._config.engine)
        self._loaded = (unit.candidate.candidate_id, engine)
        seconds = time.monotonic() - begun
        print(log_line("loaded", candidate=unit.candidate.name, seconds=seconds, node=self._node), flush=True)
        return engine

    def _unload(self) -> None:
        if self._loaded is not None:
            _, engine = self._loaded
            self._loaded = None
            engine.close()


# Ray restarts an actor a few times, without a pause; then the supervisor starts others. A unit whose actor
# died is not repeated by Ray but by the supervisor, which counts deaths per unit, so that a candidate that
# kills every process gets stopped.
RemoteScoringActor = ray.remote(max_restarts=3, max_task_retries=0)(ScoringActor)
