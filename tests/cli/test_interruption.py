"""Signals end every command alike: a message that says how to resume, and the exit code of the first one."""

import signal
import subprocess
import sys
import time

import pytest

# The command line with one command that says when it works, and cleans up for a while when it is ended.
SLOW = """
import os, sys, time
import typer
from forecast.cli import main

app = typer.Typer()

@app.command()
def slow() -> None:
    if "fork" in sys.argv:
        child = os.fork()
        if child == 0:
            print("up", flush=True)
            time.sleep(60)
        time.sleep(0.5)  # Python forgets signals that come while it forks
        os.kill(child, 15)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    try:
        print("at work", flush=True)
        time.sleep(60)
    finally:
        time.sleep(1)
        print("cleaned up", flush=True)

main.app = lambda: app(args=[])
main.main()
"""


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGTERM] * 3, 143),
        ([signal.SIGINT] * 3, 130),
        ([signal.SIGINT, signal.SIGTERM], 130),
    ],
    ids=str,
)
def test_a_command_ends_with_a_message_and_the_code_of_the_first_signal(
    sent: list[signal.Signals], code: int
) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stdout is not None and command.stdout.readline() == "at work\n"
    for number in sent:
        command.send_signal(number)
        time.sleep(0.1)
    out, err = command.communicate(timeout=30)
    assert (command.returncode, out) == (code, "cleaned up\n")
    assert err == "error: interrupted; run the same command again to resume\n"


def test_a_forked_process_ends_as_without_a_handler() -> None:
    command = subprocess.Popen([sys.executable, "-c", SLOW, "fork"], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None and command.stdout.readline() == "up\n"
    assert command.stdout.readline() == f"{-signal.SIGTERM}\n"
    command.kill()
    command.communicate()


def test_the_exit_of_ray_s_own_handler_is_an_interruption() -> None:
    script = "import sys; from forecast.cli import main; main.app = lambda: sys.exit(15); main.main()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 143 and "run the same command again to resume" in ended.stderr
