"""A house that watches training runs night by night, without Ray and with stubs of checkpoints."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lakes import tell
from training_runs import MARKER, stub_checkpoint, written

from forecast.analysis.ranking.single_proxy import rank_candidates
from forecast.config.schema import Config
from forecast.nightly.run_night import NightResult, Work, prepare, run_night
from forecast.plan import Failure, Plan, Unit
from forecast.runs.records import load_failures, save_failures
from forecast.storage.lease import held
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse
from forecast.warehouse.population import load_population

QUESTIONS = 40


class House:
    """A run `tiny` whose checkpoints arrive in a folder; `told` collects what is delivered."""

    def __init__(self, folder: Path, **nightly: Any) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.run.mkdir(parents=True)
        self.told_file = folder / "told"
        # Nats a token by step, where it is not a smooth curve.
        self.logprob: dict[int, float] = {}
        self.loaded: list[str] = []
        self.unloadable: set[int] = set()
        solutions = [{"prompt": f"q{i}", "solution": f"answer {i}"} for i in range(4)]
        questions = [
            {"id": f"q{i:02}", "prompt": f"q{i}", "options": ["yes", "no.", "may", "nay"], "answer": i % 2}
            for i in range(QUESTIONS)
        ]
        watch = {"run": "tiny", "folder": str(self.run), "final_step": 2000, **nightly.pop("watch", {})}
        self.config = Config.model_validate(
            {
                "name": "test",
                "output": str(folder / "out"),
                "trajectories": [{"task": "sums", "path": written(folder / "sums.jsonl", solutions)}],
                "direct_evaluation": [
                    {
                        "task": "quiz",
                        "path": written(folder / "quiz.jsonl", questions),
                        "prompt_template": "{prompt}",
                        "choices": "options",
                        "answer": "answer",
                        "instance_id": "id",
                    }
                ],
                "ranking": {"bootstraps": 20, "permutations": 20},
                "nightly": {
                    "watch": [watch],
                    "deliver": [{"command": ["tee", "-a", str(self.told_file)]}],
                    **nightly,
                },
            }
        )

    def arrive(self, *steps: int, marker: str | None = MARKER) -> None:
        for step in steps:
            stub_checkpoint(self.run / f"step_{step}", seed=step, marker=marker)

    def spend(self, date: str, work: Work | None = None, given: bool = False) -> NightResult:
        """One night."""
        with held(self.config.output, settle=0) as lock:
            return run_night(prepare(self.config, date, given=given), work or self.work(), lock)

    def work(self) -> Work:
        return Work(self._score, lambda plan: build_warehouse(plan, load_failures(plan)), _rank)

    def _score(self, plan: Plan) -> None:
        done = plan.done()
        failures, units = list(plan.failures), []
        for unit in plan.units:
            step = unit.candidate.settings.step
            assert step is not None
            if unit.address in done:
                continue
            if step in self.unloadable:
                failures.append(Failure("candidate", unit.candidate.name, "the weights are no weights"))
                continue
            units.append(unit)
            self.loaded.append(unit.candidate.name)
        tell(replace(plan, units=tuple(units)), self._says)
        save_failures(plan, list(dict.fromkeys(failures)))

    def _says(self, unit: Unit, text: Any) -> list[dict[str, float]]:
        step = unit.candidate.settings.step
        if unit.shard.kind == "trajectories":
            return [{"logprob": self.logprob.get(step, -500 / (step + 100))}] * 3
        number, option = int(text.instance_id[1:]), int(text.expert)
        knows = number < QUESTIONS * (0.4 + 0.5 * step / (step + 1000))
        return [{"logprob": -1.0 if (option == number % 2) == knows else -2.0}]

    def files(self) -> dict[str, bytes]:
        """State and reports."""
        out = Path(self.config.output)
        found = [out / "nightly" / "state.json", *(out / "reports").rglob("*.*")]
        return {str(path.relative_to(out)): path.read_bytes() for path in found}

    def told(self) -> list[str]:
        """Keys of all alerts that were ever delivered, in order."""
        if not self.told_file.exists():
            return []
        decoder, text, found = json.JSONDecoder(), self.told_file.read_text().strip(), []
        while text:
            record, end = decoder.raw_decode(text)
            found += [alert["key"] for alert in record["alerts"]]
            text = text[end:].strip()
        return found


def _rank(config: Config) -> Any:
    with open_warehouse(config.output) as db:
        return rank_candidates(load_population(db), config.ranking)
