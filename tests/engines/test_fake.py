"""The made-up candidate: what it promises to the tests that build on it."""

import time

import numpy as np
import pytest
from tiny import TRAJECTORIES, encoded, resolve

from forecast.config.schema import EngineConfig
from forecast.engines import Engine, SequenceStats, fake, load_engine
from forecast.engines.fake import VOCAB_SIZE, FakeEngine
from forecast.errors import CandidateError


def engine(source: str, **settings: int) -> Engine:
    candidate, config = resolve(source, engine={"kind": "fake"}, **settings)
    return load_engine(candidate, config.engine)


def scores(source: str) -> list[SequenceStats]:
    one = engine(source)
    return one.score(encoded(one))


def test_statistics_keep_to_their_definitions() -> None:
    for source in ("fake://-2.5", "fake://0", "fake://1.5", "fake://1e3"):
        for one, stats in zip(encoded(engine(source)), scores(source), strict=True):
            assert all(array.shape == (len(one.n_bytes),) for array in vars(stats).values())
            assert stats.logprob.dtype == stats.entropy.dtype == stats.top1_logprob.dtype == np.float32
            assert stats.rank.dtype == stats.ties.dtype == np.int32
            assert (stats.logprob <= stats.top1_logprob).all() and (stats.top1_logprob <= 0).all()
            assert (stats.entropy >= 0).all() and (stats.entropy <= np.log(VOCAB_SIZE)).all()
            assert (stats.rank >= 1).all() and (stats.rank + stats.ties <= VOCAB_SIZE).all()
            np.testing.assert_array_equal(stats.rank == 1, stats.logprob == stats.top1_logprob)


def test_abler_candidates_give_the_expert_more_probability() -> None:
    means = [np.mean(np.concatenate([s.logprob for s in scores(f"fake://{a}")])) for a in (-1, 0.5, 1.5, 3)]
    assert means == sorted(means) and means[-1] - means[0] > 2


def test_results_repeat_to_the_bit_whatever_the_order() -> None:
    one = engine("fake://1.5")
    sequences = encoded(one)
    first, again = one.score(sequences), scores("fake://1.5")
    backwards = engine("fake://1.5").score(sequences[::-1])[::-1]
    for a, b, c in zip(first, again, backwards, strict=True):
        for x, y, z in zip(vars(a).values(), vars(b).values(), vars(c).values(), strict=True):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_array_equal(x, z)


def test_candidates_differ_in_their_noise() -> None:
    assert not np.array_equal(scores("fake://1.5")[0].rank, scores("fake://1.5001")[0].rank)


def test_tokens_cover_the_text() -> None:
    for one in encoded(engine("fake://1")):
        assert one.n_bytes.sum() == len(one.trajectory.solution.encode())


def test_facts() -> None:
    assert engine("fake://1").facts.vocab_size == VOCAB_SIZE
    assert engine("fake://1").facts.context_length is None
    assert engine("fake://1?context=40").facts.context_length == 40
    assert engine("fake://1?context=40", context_length=30).facts.context_length == 30
    assert len(encoded(engine("fake://1?context=40"))) < len(encoded(engine("fake://1"))) == len(TRAJECTORIES)


def test_asked_to_fail_while_loading() -> None:
    with pytest.raises(CandidateError, match="'tiny': asked to fail while loading"):
        engine("fake://1?fail=load")


def test_asked_to_give_nan() -> None:
    one = engine("fake://1?fail=nan")
    with pytest.raises(CandidateError, match=r"'tiny': NaN .* token 0 of instance 'q0', task 'sums'"):
        one.score(encoded(one))


def test_asked_to_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(fake.os, "_exit", leave)
    one = engine("fake://1?fail=crash")
    with pytest.raises(SystemExit):
        one.score(encoded(one))


def test_asked_to_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    scores("fake://1?delay=0.25")
    assert slept == [0.25] * len(TRAJECTORIES)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("fake://able", "could not convert"),
        ("fake://", "could not convert"),
        ("fake://nan", "finite"),
        ("fake://1?delay=-1", "finite"),
        ("fake://1?delay=soon", "could not convert"),
        ("fake://1?context=many", "invalid literal"),
        ("fake://1?fail=later", "unknown way to fail 'later'"),
        ("fake://1?fial=load", "unknown option 'fial'"),
        ("fake://1/2", "another form"),
    ],
)
def test_sources_that_make_no_sense(source: str, said: str) -> None:
    candidate, config = resolve(source, engine={"kind": "fake"})
    with pytest.raises(
        CandidateError,
        match=f"'tiny': expected fake://NUMBER, .* got {source!r} .*{said}".replace("?", r"\?"),
    ):
        FakeEngine(candidate, config.engine)


def test_the_configuration_chooses_the_engine() -> None:
    candidate, _ = resolve("fake://1", engine={"kind": "fake"})
    assert isinstance(load_engine(candidate, EngineConfig(kind="fake")), FakeEngine)
