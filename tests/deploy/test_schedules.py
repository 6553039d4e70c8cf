"""The systemd units, the crontab, and every command that the deployment files call."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from forecast.cli import jobs, main, nightly

DEPLOY = Path(__file__).parents[2] / "configs" / "deploy"
UNITS = ("forecast-nightly.service", "forecast-nightly.timer")
PROGRAM = "/opt/forecast/.venv/bin/forecast"
# Lowest and highest value of a cron field.
FIELDS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}


def command_line() -> Any:
    """All commands."""
    return typer.main.get_command(main.app)


def parse(words: list[str], group: Any) -> dict[str, Any] | None:
    """Options of one call as the command line reads them; None for a command that does not exist."""
    name, *arguments = words
    if name not in group.commands:
        return None
    return dict(group.commands[name].make_context(name, arguments).params)


def cron_errors(schedule: str) -> list[str]:
    """What is wrong with the five fields of a schedule."""
    parts = schedule.split()
    if len(parts) != len(FIELDS):
        return [f"{len(parts)} fields"]
    errors = []
    for part, (field, (low, high)) in zip(parts, FIELDS.items(), strict=True):
        for item in part.split(","):
            match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", item)
            numbers = [int(n) for n in match.groups()[:2] if n] if match else []
            if match is None or any(not low <= n <= high for n in numbers) or numbers != sorted(numbers):
                errors.append(f"{field}: {item}")
    return errors


def crontab_lines() -> list[str]:
    lines = (DEPLOY / "forecast-nightly.crontab").read_text().splitlines()
    return [line.removeprefix("# ") for line in lines if re.match(r"(# )?\d", line)]


def calls() -> Iterator[tuple[str, list[str]]]:
    """(file, words after `forecast`) of every call in the deployment files, those in comments too."""
    for path in sorted(DEPLOY.iterdir()):
        text = path.read_text()
        if path.suffix == ".yaml":
            document = yaml.safe_load(text)
            for part in walk(document):
                if isinstance(part.get("entrypoint"), str):
                    program, *words = shlex.split(part["entrypoint"])
                    assert program == "forecast", path.name
                    yield path.name, words
                if part.get("command") == ["forecast"]:
                    yield path.name, part["args"]
        elif path.suffix == ".service":
            for line in re.findall(r"^(?:# )?ExecStart=(.*)$", text, re.MULTILINE):
                program, *words = shlex.split(line)
                assert program == PROGRAM
                yield path.name, words
        elif path.suffix == ".crontab":
            for line in crontab_lines():
                words = shlex.split(line)
                begin = words.index(PROGRAM) + 1
                yield path.name, words[begin : words.index(">>")]
        elif path.suffix == ".md":
            for line in re.findall(r"^forecast (.*)$", text, re.MULTILINE):
                yield path.name, shlex.split(line)


def walk(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        yield document
    for part in (
        document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    ):
        yield from walk(part)


def test_every_command_that_is_called_exists_with_these_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    group, seen = command_line(), set()
    for name, words in calls():
        options = parse(words, group)
        seen.add((name, words[0]))
        assert options is not None, f"{name} calls {words[0]}"
        if words[0] == "submit" and name != "README.md":
            assert (options["command"], options["again"], options["wait"]) == ("nightly", False, True), name
            assert options["command"] in jobs._COMMANDS
    by_file = {name: {words for file, words in seen if file == name} for name, _ in seen}
    assert by_file == {
        "README.md": {"submit"},
        "cronjob.yaml": {"submit"},
        "raycronjob.yaml": {"nightly"},
        "rayjob.yaml": {"run"},
        "forecast-nightly.service": {"nightly", "submit"},
        "forecast-nightly.crontab": {"nightly", "submit"},
    }
    with pytest.raises(Exception, match="--adress"):
        parse(["submit", "x.yaml", "--adress=http://x:1"], group)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    def remarks(change: tuple[str, str] = ("", "")) -> str:
        """It says nothing about units that are right; most mistakes are remarks, not exit codes."""
        for unit in UNITS:
            # The program of another machine is not here, and neither is its user.
            text = (DEPLOY / unit).read_text().replace(PROGRAM, shutil.which("true") or "/bin/true")
            (tmp_path / unit).write_text(text.replace(*change))
        command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit) for unit in UNITS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        ours = [line for line in (done.stdout + done.stderr).splitlines() if "forecast-nightly" in line]
        return "\n".join(ours) + (f"\nexit code {done.returncode}" if done.returncode else "")

    assert remarks() == ""
    assert "Unknown key" in remarks(("Persistent=", "Persistant="))
    assert "Failed to parse calendar" in remarks(("*-*-* 02:00:00", "every night"))
    assert remarks(("Type=oneshot", "Type=once")) != ""


def test_units_by_hand() -> None:
    for unit in UNITS:
        sections = re.findall(r"^\[(\w+)\]$", (DEPLOY / unit).read_text(), re.MULTILINE)
        assert sections == (["Unit", "Service"] if unit.endswith("service") else ["Unit", "Timer", "Install"])
    service = (DEPLOY / UNITS[0]).read_text()
    # ProtectSystem=strict leaves nothing writable but the unit's own folder.
    assert "StateDirectory=forecast" in service and "WorkingDirectory=/var/lib/forecast" in service
    assert UNITS[0].removesuffix(".service") == UNITS[1].removesuffix(".timer"), "a timer starts its namesake"


def test_schedules() -> None:
    schedules = [" ".join(line.split()[:5]) for line in crontab_lines()]
    for name in ("cronjob.yaml", "raycronjob.yaml"):
        schedules.append(yaml.safe_load((DEPLOY / name).read_text())["spec"]["schedule"])
    assert len(schedules) == 4
    for schedule in schedules:
        assert cron_errors(schedule) == []
    assert cron_errors("*/15 0-6,22 1 1-12 7") == []
    assert cron_errors("0 24 * * *") == ["hour: 24"]
    assert cron_errors("60 2 0 * mon") == ["minute: 60", "day: 0", "weekday: mon"]
    assert cron_errors("0 5-2 * * *") == ["hour: 5-2"]
    assert cron_errors("0 2 * *") == ["4 fields"]


def test_the_crontab() -> None:
    """cron ends a command at a percent sign, and knows hardly any PATH."""
    lines = (DEPLOY / "forecast-nightly.crontab").read_text().splitlines()
    assert not [line for line in lines if "%" in line]
    for line in lines:
        assert line.startswith("#") or re.match(r"[A-Z_]+=\S+$", line) or line in crontab_lines(), line
    (active,) = [line for line in lines if re.match(r"\d", line)]
    assert f" {PROGRAM} nightly /etc/" in active and "2>&1" in active


def test_exit_codes_of_a_night() -> None:
    """What the files say of them is what the command returns."""
    assert (nightly.ALERT_RAISED, nightly.LOCKED) == (5, 6)
    service = (DEPLOY / UNITS[0]).read_text()
    assert re.findall(r"^SuccessExitStatus=(.*)$", service, re.MULTILINE) == ["6"]
    job = yaml.safe_load((DEPLOY / "cronjob.yaml").read_text())["spec"]["jobTemplate"]["spec"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 3, 5, 6]
    readme = (DEPLOY / "README.md").read_text()
    assert re.findall(r"^\| (\d) \|", readme, re.MULTILINE) == ["0", "1", "2", "3", "5", "6"]
