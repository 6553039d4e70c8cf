import fcntl
import ipaddress
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from nights import DAYS, night
from urllib3.util import retry as retry_module

from forecast.config.nightly import Deliver
from forecast.nightly import notify as module
from forecast.nightly.notify import deliver, message, place_of
from forecast.nightly.records import Alert

WORD = "xyzSECRETxyz"
SECRET = f"T000/B000/{WORD}"
ALERT = Alert("failed_to_load", "failed_to_load/olmo/1", "olmo", "olmo: <step> & 1 broke.", {"step": 1})

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A webhook that gives these answers, and keeps what it was sent."""

    def __init__(self, answers: list[Answer]) -> None:
        self.got: list[tuple[str, str, str | None, bytes]] = []  # method, path, content type, body
        given = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                given.got.append((self.command, self.path, self.headers["Content-Type"], body))
                answers[min(len(given.got), len(answers)) - 1](self)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.place = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{self.place}/services/{SECRET}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    server = Server(list(answers))
    try:
        yield server
    finally:
        server.close()


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code, f"the path was {SECRET}")
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(SECRET)))
        handler.end_headers()
        handler.wfile.write(SECRET.encode())

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between tries, which are not waited."""
    found: list[float] = []
    # A post that an earlier test gave up goes on in its thread.
    earlier = set(threading.enumerate())

    def sleep(seconds: float) -> None:
        if threading.current_thread() not in earlier:
            found.append(seconds)

    monkeypatch.setattr(retry_module, "time", SimpleNamespace(sleep=sleep, time=time.time))
    return found


def problems_of(target: Deliver, **options) -> tuple[str, ...]:
    """What went wrong when one alert was delivered."""
    problems = deliver(night(0), [ALERT], [target], **options)
    assert WORD not in str(problems)
    return problems


def test_what_a_webhook_gets() -> None:
    with serving(status(200)) as server:
        assert problems_of(Deliver(webhook=server.url)) == ()
    ((method, path, kind, body),) = server.got
    assert (method, path) == ("POST", f"/services/{SECRET}") and kind.startswith("application/json")
    assert json.loads(body) == {
        "text": f"team, night of {DAYS[0]}: 1 alert\n- olmo: &lt;step&gt; &amp; 1 broke.",
        "config": "team",
        "date": DAYS[0],
        "alerts": [
            {
                "rule": "failed_to_load",
                "key": "failed_to_load/olmo/1",
                "run": "olmo",
                "text": "olmo: <step> & 1 broke.",
                "numbers": {"step": 1},
            }
        ],
    }


def test_names_in_a_message_call_nobody_and_stay_on_their_line() -> None:
    alert = replace(ALERT, run="\ud800", text="@channel <!here>\n- a\x1b[31m\u202e of run@step4")
    with serving(status(200)) as server:
        assert deliver(night(0), [alert], [Deliver(webhook=server.url)]) == ()
    sent = json.loads(server.got[0][3])
    assert sent["text"].split("\n")[1:] == ["- @ channel &lt;!here&gt; - a\\x1b[31m\\u202e of run@step4"]
    assert (sent["alerts"][0]["text"], sent["alerts"][0]["run"]) == (alert.text, "\ud800")


def test_without_alerts_nothing_is_sent() -> None:
    with serving(status(200)) as server:
        assert deliver(night(0), [], [Deliver(webhook=server.url), Deliver(command=("false",))]) == ()
    assert server.got == []


def test_a_long_list_is_cut_in_the_text_alone() -> None:
    sent = message(night(0), [ALERT] * 50)
    assert len(sent["alerts"]) == 50
    assert sent["text"].count("\n- ") == 20 and sent["text"].endswith(
        "and 30 more, all in the night's report"
    )


@pytest.mark.parametrize("code", [200, 201, 202, 204])
def test_all_of_200_is_success(code: int) -> None:
    with serving(lambda h: (h.send_response(code), h.end_headers())) as server:
        assert problems_of(Deliver(webhook=server.url)) == ()


@pytest.mark.parametrize(("code", "phrase"), [(400, "Bad Request"), (403, "Forbidden"), (404, "Not Found")])
def test_a_refusal_is_not_repeated(code: int, phrase: str, waits: list[float]) -> None:
    with serving(status(code)) as server:
        (problem,) = problems_of(Deliver(webhook=server.url))
    assert problem == f"alerts were not delivered to {server.place}: it answered {code} {phrase}"
    assert len(server.got) == 1 and waits == []


@pytest.mark.parametrize("code", [500, 503, 429, 599])
def test_trouble_of_the_server_is_tried_three_times(code: int, waits: list[float]) -> None:
    with serving(status(code)) as server:
        (problem,) = problems_of(Deliver(webhook=server.url))
    assert f"it answered {code}" in problem
    assert len(server.got) == 3 and waits == [4.0]


def test_trouble_that_passes_is_no_problem(waits: list[float]) -> None:
    with serving(status(503, Retry_After="7"), status(500, Retry_After="86400"), status(200)) as server:
        assert problems_of(Deliver(webhook=server.url)) == ()
    assert waits == [7.0, 30.0]
    assert len({body for *_, body in server.got}) == 1


def test_a_connection_that_breaks_is_tried_again() -> None:
    with serving(hang_up, status(200)) as server:
        assert problems_of(Deliver(webhook=server.url)) == ()
    with serving(hang_up) as server:
        (problem,) = problems_of(Deliver(webhook=server.url))
    assert server.place in problem


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(code: int, waits: list[float]) -> None:
    with (
        serving(status(200)) as other,
        serving(status(code, Location=f"{other.place}/{SECRET}")) as server,
    ):
        (problem,) = problems_of(Deliver(webhook=server.url))
    assert "redirect" in problem and other.got == [] and len(server.got) == 1 and waits == []


def test_retries_log_nothing_of_the_url(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with serving(hang_up, status(503), status(200)) as server:
        assert problems_of(Deliver(webhook=server.url)) == ()
    assert len(server.got) == 3 and WORD not in caplog.text


def test_a_wait_that_cannot_be_read_is_the_usual_one(waits: list[float]) -> None:
    with serving(status(503, Retry_After="soon"), status(503, Retry_After="soon"), status(200)) as server:
        assert problems_of(Deliver(webhook=server.url)) == ()
    assert waits == [4.0]


def test_nobody_listens(waits: list[float]) -> None:
    with serving(status(200)) as server:
        pass
    (problem,) = problems_of(Deliver(webhook=server.url))
    assert problem == f"alerts were not delivered to {server.place}: Connection refused"
    assert waits == [4.0]


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(module, "_POST_SECONDS", 0.2)
    with serving(lambda handler: end.wait(20)) as server:
        (problem,) = problems_of(Deliver(webhook=server.url))
        end.set()
    assert "no answer within 0.2 s" in problem


def test_a_server_that_answers_a_byte_at_a_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        """Each byte comes well within the limit, the answer never."""
        try:
            while not end.wait(0.05):
                handler.wfile.write(b"x")
        except OSError:
            pass

    monkeypatch.setattr(module, "_WEBHOOK_SECONDS", 0.4)
    with serving(drip) as server:
        (problem,) = problems_of(Deliver(webhook=server.url))
        end.set()
    assert "no answer within 0.4 s" in problem


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"http://example.org/{SECRET}", "not encrypted"),
        (f"http://127.0.0.1.example.org/{SECRET}", "not encrypted"),
        (f"https://user:{WORD}@example.org/x", "user name or password"),
        (f"ftp://example.org/{SECRET}", "cannot be read"),
        (f"file:///{SECRET}", "cannot be read"),
        (f"https:///{SECRET}", "cannot be read"),
        (f"https://example.org:99999/{SECRET}", "cannot be read"),
        (f"https://[::1/{SECRET}", "cannot be read"),
        (f"https://example.org/a b{SECRET}", "cannot be read"),
        (f"https://example.org/\n{SECRET}", "cannot be read"),
    ],
)
def test_urls_that_are_not_used(url: str, words: str, waits: list[float]) -> None:
    (problem,) = problems_of(Deliver(webhook_env="HOOK"), environ={"HOOK": url})
    assert words in problem and waits == []


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    with serving(status(200)) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        (problem,) = problems_of(Deliver(webhook=server.url.replace("http://", "https://")))
    assert "its certificate was not accepted: self-signed certificate" in problem and server.got == []


def certificate(folder: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "here")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = folder / "both.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(pem)
    )
    return path


def test_place_of_a_url() -> None:
    assert place_of(f"https://Hooks.example.org/{SECRET}") == "https://hooks.example.org"
    assert place_of(f"http://[::1]:80/{SECRET}") == "http://[::1]:80"
    assert place_of(f"https://u:{WORD}@example.org:8443/") == "https://example.org:8443"
    assert place_of(f"https://[{SECRET}") == place_of(SECRET) == "a webhook"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(status(500)) as proxy, serving(status(200)) as server:
        monkeypatch.setenv("http_proxy", proxy.place)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert problems_of(Deliver(webhook=server.url)) == ()
    assert proxy.got == []


def test_a_url_from_the_environment() -> None:
    with serving(status(200)) as server:
        assert problems_of(Deliver(webhook_env="HOOK"), environ={"HOOK": server.url + "\n"}) == ()
        for environ in ({}, {"HOOK": " "}):
            (problem,) = problems_of(Deliver(webhook_env="HOOK"), environ=environ)
            assert "environment variable HOOK" in problem
    assert len(server.got) == 1


# Commands


def python(code: str) -> Deliver:
    return Deliver(command=(sys.executable, "-c", code))


def test_a_command_gets_the_alerts_on_its_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "got.json"
    code = f"import pathlib, sys; pathlib.Path({str(path)!r}).write_bytes(sys.stdin.buffer.read())"
    assert problems_of(python(code)) == ()
    assert json.loads(path.read_bytes()) == message(night(0), [ALERT])


def test_a_command_is_not_read_by_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "made by a shell"
    assert problems_of(Deliver(command=("true", f"; touch '{path}'", "$(false)"))) == ()
    assert not path.exists()


def test_a_command_need_not_read_what_it_is_given() -> None:
    big = [Alert("nothing_new", str(i), None, "x" * 1000) for i in range(2000)]  # more than a pipe holds
    assert deliver(night(0), big, [Deliver(command=("true",))]) == ()


def test_a_command_that_fails() -> None:
    code = f"import sys; sys.stderr.write('one\\n\\x1b[31mno such team\\n\\n'); sys.exit(3) # {SECRET}"
    (problem,) = problems_of(python(code))
    assert problem.startswith(f"alerts were not delivered by the command {sys.executable!r}: exit code 3")
    assert problem.endswith("no such team") and "\x1b" not in problem
    (problem,) = problems_of(python("import os; os.kill(os.getpid(), 9)"))
    assert problem.endswith("signal 9")


def test_a_command_that_is_not_there_or_no_program(tmp_path: Path) -> None:
    (problem,) = problems_of(Deliver(command=("no-such-program-here", SECRET)))
    assert "'no-such-program-here': No such file" in problem
    (tmp_path / "plain").write_text("x")
    (problem,) = problems_of(Deliver(command=(str(tmp_path / "plain"),)))
    assert "Permission denied" in problem


def test_a_command_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    monkeypatch.setattr(module, "_COMMAND_SECONDS", 1.0)
    lock = tmp_path / "lock"
    child = (
        f"import fcntl, time; f = open({str(lock)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); time.sleep(999)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    (problem,) = problems_of(python(parent))
    assert problem.endswith("had not ended after 1 s and was killed")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for ever if the child still holds it


def test_one_failed_target_does_not_stop_the_others(tmp_path: Path) -> None:
    path = tmp_path / "told"
    with serving(status(404)) as bad, serving(status(200)) as good:
        targets = [
            Deliver(webhook=bad.url),
            Deliver(command=("false",)),
            Deliver(webhook=good.url),
            Deliver(command=("touch", str(path))),
        ]
        problems = deliver(night(0), [ALERT], targets)
    assert ["404" in problems[0], "'false': exit code 1" in problems[1], len(problems)] == [True, True, 2]
    assert len(good.got) == 1 and path.exists()
