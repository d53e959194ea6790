"""Whatever fails inside the exporter, the host's responses stay as they are and the failure is counted."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter
from exporter.measure.instruments import ExtendedInstruments, Instruments
from exporter.worker.failures import STAGES, Failures
from exporter.worker.slots import Slots
from tests.rig.host import BARE, PATHS, REQUEST_ID, REQUESTS, answers, counted_text, measured
from tests.rig.wsgi import Clock, Raises, call, counted


def failures(exporter: FlaskExporter) -> dict[str, float]:
    return {stage: n for (stage,), n in counted(exporter, "flask_exporter_failures_total").items()}


def test_without_a_fault_the_responses_are_the_hosts_and_nothing_is_counted() -> None:
    app, exporter = measured()

    assert answers(app) == BARE
    assert failures(exporter) == {}
    assert sum(counted(exporter, "flask_http_request_total").values()) == REQUESTS


def broken_group(_: Any) -> str:
    raise RuntimeError("injected")


@pytest.mark.parametrize(
    "options",
    [
        {"group_by": broken_group},
        {"default_labels": {"shop": lambda: broken_group(None)}},
        {"default_labels": {"shop": lambda response: broken_group(response)}},
        {"default_labels": {"length": lambda response: 1 / len(response.missing)}},
    ],
    ids=["group_by", "default label", "of the response", "an attribute that is not there"],
)
def test_labels_that_fail(options: dict[str, Any]) -> None:
    """The requests are counted all the same, without the label that could not be told."""
    app, exporter = measured(**options)

    assert answers(app) == BARE
    # The four of /boom are asked for when the exception comes and when its error page is sent.
    assert failures(exporter) == {"labels": REQUESTS + 4}
    assert sum(counted(exporter, "flask_http_request_total").values()) == REQUESTS
    assert counted(exporter, "flask_http_requests_in_progress") == {}


def test_a_routing_map_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for a request that Flask has dropped already, here because the view exits."""
    monkeypatch.setattr("exporter.routes.flask.request_of", lambda _: Raises())
    app, exporter = measured()
    app.add_url_rule("/exit", "exit", Raises(SystemExit(3)))

    assert isinstance(call(app, "/exit").error, SystemExit)
    assert failures(exporter) == {"labels": 1}
    assert counted(exporter, "flask_http_request_duration_seconds_count") == {("GET", "_unmatched", "500"): 1}


@pytest.mark.parametrize("target", ["recorder", "error", "_build", "_error_cell"])
def test_instruments_that_fail(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app, exporter = measured()
    fault = Raises()
    monkeypatch.setattr(Instruments, "prime", lambda *_: None)
    monkeypatch.setattr(ExtendedInstruments, target, fault)

    assert answers(app) == BARE
    assert fault.calls > 0
    assert failures(exporter) == {"instruments": fault.calls}
    assert counted(exporter, "flask_http_requests_in_progress") == {}


def test_slots_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file for them: this process keeps its own, nobody else sees them."""
    monkeypatch.setattr("exporter.worker.slots.ring.claim", Raises(OSError(28, "No space left on device")))
    app, exporter = measured()
    exporter.core.worker._directory = "/nowhere"

    assert answers(app) == BARE
    assert failures(exporter) == {"slots": 1}
    assert exporter.core.window() == (REQUESTS, 4 + 1)  # all of /boom, and /break read to its end
    assert call(app, "/health").status == "200 OK"


def test_slots_that_cannot_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "entry", Raises(OSError(28, "No space left on device")))
    app, exporter = measured()

    assert answers(app) == BARE
    assert failures(exporter).keys() <= {"middleware", "instruments", "slots"}
    assert sum(failures(exporter).values()) >= 1


@pytest.mark.parametrize(
    ("target", "stage"),
    [
        ("exporter.worker.requests.head.pack_into", "recent"),
        ("exporter.worker.requests.tail.pack_into", "recent"),
        ("exporter.log.requestlog.RequestLog.write", "request_log"),
    ],
)
def test_what_takes_requests_fails(
    target: str, stage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fault = break_into(target, monkeypatch)
    app, exporter = measured(request_log=str(tmp_path / "requests.log"))

    assert answers(app) == BARE
    assert failures(exporter) == {stage: REQUESTS}
    assert fault.calls == REQUESTS
    assert sum(counted(exporter, "flask_http_request_total").values()) == REQUESTS
    exporter.core.request_log.close()


def test_a_scrape_without_exemplars_is_better_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    app, exporter = measured()
    assert answers(app) == BARE
    monkeypatch.setattr(exporter.core.flight_recorder, "latest", Raises())

    accept = {"HTTP_ACCEPT": "application/openmetrics-text; version=1.0.0"}
    answer = call(app, "/metrics", variables=accept)

    assert (answer.status, answer.body.endswith(b"# EOF\n")) == ("200 OK", True)
    assert failures(exporter) == {"recent": 1}


def break_into(target: str, monkeypatch: pytest.MonkeyPatch) -> Raises:
    """Put a fault in the place of this method, whose object may be one that takes no attributes."""
    fault = Raises()
    owner, _, method = target.rpartition(".")
    if method == "pack_into":
        monkeypatch.setattr(owner, SimpleNamespace(pack_into=fault))
    else:
        monkeypatch.setattr(target, fault)
    return fault


def test_a_clock_that_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sum falls: a duration that cannot be is counted as 0 and as a failure."""
    clock = Clock(monkeypatch)
    app, exporter = measured()
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        app.view_functions[rule.endpoint] = backwards(clock, view)

    assert answers(app) == BARE
    sums = counted(exporter, "flask_http_request_duration_seconds_sum")
    assert sums == {}
    assert failures(exporter)["middleware"] > 0
    assert failures(exporter).keys() == {"middleware"}
    assert sum(counted(exporter, "flask_http_request_total").values()) == REQUESTS


def backwards(clock: Clock, view: Callable[..., Any]) -> Callable[..., Any]:
    def earlier(**values: Any) -> Any:
        clock.advance(-90.0)
        return view(**values)

    return earlier


@pytest.mark.parametrize("target", ["from_proxy", "observe_queue"])
def test_a_queue_time_that_cannot_be_told(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from exporter.pages.access import Access

    fault = Raises()
    monkeypatch.setattr(Access if target == "from_proxy" else ExtendedInstruments, target, fault)
    app, exporter = measured(trusted_proxies="127.0.0.0/8")

    monkeypatch.setitem(REQUEST_ID, "HTTP_X_REQUEST_START", "1700000000")
    assert answers(app) == BARE
    assert fault.calls == 2 * len(PATHS)
    assert failures(exporter) == {"middleware": fault.calls}


def test_a_beginning_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    app, exporter = measured()
    with monkeypatch.context() as patched:
        patched.setattr(ExtendedInstruments, "begin", Raises())
        assert answers(app) == BARE
    assert failures(exporter) == {"middleware": REQUESTS}

    assert answers(app) == BARE
    assert sum(counted(exporter, "flask_http_request_total").values()) == REQUESTS


def test_health_answers_though_the_last_minute_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    app, exporter = measured()
    monkeypatch.setattr(Slots, "totals", Raises())

    answer = call(app, "/health")

    assert answer.status == "200 OK"
    assert json.loads(answer.body)["status"] == "healthy"
    assert failures(exporter) == {"health": 1}
    assert exporter.core.window() == (0, 0)


def test_a_flight_recorder_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.worker.flightrecorder.FlightRecorder.open", Raises(OSError("full")))
    app, exporter = measured()

    assert answers(app) == BARE
    assert failures(exporter) == {"recent": 1}


def test_a_collector_that_fails_costs_its_own_families(monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = measured()
    call(app, "/plain")
    monkeypatch.setattr(Slots, "extremes", Raises())

    answer = call(app, "/metrics")

    assert answer.status == "200 OK"
    assert b'flask_http_request_total{method="GET",status="200"} 1.0\n' in answer.body
    assert b"flask_http_request_duration_max_seconds{" not in answer.body
    assert counted_text(answer.body, "scrape") in (0.0, 1.0)
    assert counted_text(call(app, "/metrics").body, "scrape") >= 1.0


# The counter itself


def test_every_stage_exists_at_zero() -> None:
    registry = CollectorRegistry()
    Failures(registry)

    assert {
        sample.labels["stage"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "flask_exporter_failures_total"
    } == dict.fromkeys(STAGES, 0.0)


def test_a_failure_is_logged_once_a_minute_for_each_stage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    failing = Failures(CollectorRegistry())

    for _ in range(3):
        failing.count("recent", OSError("full"))
        failing.count("labels", KeyError("x"))
    assert [record.getMessage().split()[4] for record in caplog.records] == ["recent;", "labels;"]

    clock.advance(60)
    failing.count("recent", OSError("full"))
    assert len(caplog.records) == 3


def test_a_broken_log_handler_does_not_reach_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("exporter"), "error", Raises())
    break_into("exporter.worker.requests.tail.pack_into", monkeypatch)
    app, exporter = measured()

    assert answers(app) == BARE
    assert failures(exporter) == {"recent": REQUESTS}


def test_failures_that_cannot_be_counted_are_counted_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    failing = Failures(registry)
    with monkeypatch.context() as patched:
        patched.setattr(failing._family, "labels", Raises(OSError("full")))
        failing.count("recent", OSError("full"))
        failing.count("slots", OSError("full"))

    failing.count("recent", OSError("full"))

    value = registry.get_sample_value
    assert value("flask_exporter_failures_total", {"stage": "recent"}) == 2
    assert value("flask_exporter_failures_total", {"stage": "slots"}) == 1


# The worker directory

SCRIPT = """
import json, os, sys

when, kind, directory = sys.argv[1:]
os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
os.environ["EXPORTER_SLOW"] = "0"  # a busy machine makes slow requests, with a file of their own
from tests.rig.wsgi import call
from exporter.worker.failures import STAGES
from tests.rig.host import BARE, answers, counted_text, measured

def spoil():
    if kind == "read-only":
        os.chmod(directory, 0o555)
        return
    with open(os.path.join(directory, "filler"), "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass

def mend():
    if kind == "read-only":
        os.chmod(directory, 0o700)
    else:
        os.unlink(os.path.join(directory, "filler"))

app, exporter = measured(group_by="path", max_series=100_000)
app.add_url_rule("/new/<int:number>", "new", lambda number: str(number))
if when == "later":
    assert answers(app) == BARE
    call(app, "/metrics")
    child = os.fork()
    if not child:  # a dead worker's counts cannot be folded
        answers(app)
        os._exit(0)
    os.waitpid(child, 0)
spoil()
same = answers(app) == BARE
grown = all(call(app, f"/new/{number}").body == b"%d" % number for number in range(300))
after = answers(app) == BARE
if when == "later":
    call(app, "/metrics")
mend()
mended = answers(app) == BARE
text = call(app, "/metrics").body.decode()
counts = {stage: counted_text(text.encode(), stage) for stage in STAGES}
print(json.dumps([[same, grown, after, mended], [stage for stage in STAGES if counts[stage]]]))
"""


@pytest.mark.parametrize(
    ("kind", "when", "stages"),
    [
        ("read-only", "from the beginning", ["slots", "recent", "worker_file", "error_groups"]),
        ("read-only", "later", []),  # what is open stays writable
        ("full", "from the beginning", ["instruments", "slots", "recent", "worker_file"]),
        ("full", "later", ["instruments", "worker_file", "fold"]),
    ],
)
def test_a_worker_directory_that_is_read_only_or_full(
    kind: str, when: str, stages: list[str], tmp_path: Path
) -> None:
    """No response changes and the worker lives on; when there is room again, the failures are told."""
    # Root heeds the mode of a directory only without this capability.
    size = "16m" if kind == "read-only" else "3m"
    capped = "setpriv --bounding-set=-dac_override,-dac_read_search --"
    private = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    private += [
        f'mount -t tmpfs -o size={size} tmpfs "$1" && shift && exec {capped} "$@"',
        "sh",
        str(tmp_path),
    ]
    if subprocess.run([*private, "true"], capture_output=True).returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("unshare or setpriv cannot be used here")
    script = [sys.executable, "-W", "ignore", "-c", SCRIPT, when, kind, str(tmp_path)]

    done = subprocess.run([*private, *script], capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == [[True, True, True, True], stages]


REMOVAL = """
import json, os, shutil, sys

os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
from tests.rig.wsgi import application, call

app, exporter = application(slow=1e-9)
app.add_url_rule("/boom", "boom", lambda: str(1 / 0))

def shown():
    call(app, "/boom")
    groups, slow = (json.loads(call(app, f"/monitoring/{page}").body) for page in ("errors", "slow"))
    return [group["count"] for group in groups], {rule: len(requests) for rule, requests in slow.items()}

before = shown()
shutil.rmtree(sys.argv[1])
exporter.core.worker.tick(0)
print(json.dumps([before, shown(), call(app, "/metrics").status]))
"""


def test_errors_and_slow_requests_are_shown_again_after_a_removal_of_the_directory(tmp_path: Path) -> None:
    script = [sys.executable, "-c", REMOVAL, str(tmp_path / "workers")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == [[[1], {"/boom": 1}]] * 2 + ["200 OK"]


SHUT_OUT = """
import json, os, shutil, sys

os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
from tests.rig.wsgi import application, call

app, exporter = application()
shutil.rmtree(sys.argv[1])
open(sys.argv[1], "w").close()
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
answers = [call(app, path) for path in ("/orders/7", "/metrics")]
os.unlink(sys.argv[1])
exporter.core.worker.tick(0)
answers += [call(app, path) for path in ("/orders/7", "/metrics")]
print(json.dumps([[answer.status, answer.body.decode().strip()] for answer in answers]))
"""


def test_a_worker_without_a_place_in_the_directory_says_why_and_takes_one_later(tmp_path: Path) -> None:
    """What it could not write till then is a failure."""
    script = [sys.executable, "-c", SHUT_OUT, str(tmp_path / "workers")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr
    first, (refusal, reason), second, (status, text) = json.loads(done.stdout)
    assert first == second == ["200 OK", "xxxxxxx"]
    assert refusal == "500 INTERNAL SERVER ERROR"
    assert reason.startswith(
        "This worker cannot write into PROMETHEUS_MULTIPROC_DIR: [Errno 20] Not a directory"
    )
    assert status == "200 OK"
    assert 'flask_http_request_total{method="GET",status="200"} 1.0' in text.splitlines()
    assert counted_text(text.encode(), "worker_file") > 0
