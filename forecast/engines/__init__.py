"""Engines: load a candidate and give exact token statistics of encoded trajectories."""

from forecast.config.schema import EngineConfig
from forecast.engines.base import ENGINE_VERSION, Engine, EngineFacts, SequenceStats
from forecast.engines.bounded_encode import check_configuration, check_tokenizer
from forecast.inputs.models.resolve import Candidate

__all__ = ["ENGINE_VERSION", "Engine", "EngineFacts", "SequenceStats", "load_engine"]


def load_engine(candidate: Candidate, config: EngineConfig) -> Engine:
    """Load a candidate on this machine.

    Raises:
        CandidateError: the candidate cannot be loaded; the message has its name and the reason.
    """
    if candidate.engine == "fake":
        from forecast.engines.fake import FakeEngine

        return FakeEngine(candidate, config)
    check_configuration(candidate)
    check_tokenizer(candidate)
    if candidate.engine == "vllm":
        from forecast.engines.vllm_engine import VllmEngine

        return VllmEngine(candidate, config)
    from forecast.engines.torch_engine import TorchEngine  # torch takes seconds to import

    return TorchEngine(candidate, config)
