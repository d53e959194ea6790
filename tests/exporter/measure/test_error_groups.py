"""Which requests are counted in an error group: those in which the application's code failed, each once."""

from __future__ import annotations

import builtins
import gc
import json
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial, wraps
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort, got_request_exception, render_template
from flask.views import MethodView
from werkzeug.exceptions import Conflict, NotFound

from exporter import FlaskExporter
from exporter.measure.fingerprints import Fingerprints, traceback_of
from exporter.observation import Fingerprint, Observation
from exporter.places import Places
from exporter.worker.errorgroups import ErrorGroups
from tests.rig.wsgi import Raises, application, call, counted, environ

FAMILY = "flask_http_request_error_group_total"


def groups(exporter: FlaskExporter, name: str = FAMILY) -> dict[tuple[str, str], float]:
    """How often each (type, function of this module) was counted."""
    found = {
        (error_type, where.removeprefix(f"{__name__}:").rpartition(".")[2]): count
        for (_, error_type, where), count in counted(exporter, name).items()
    }
    assert len(found) == len(counted(exporter, name))
    return found


def fail(error: BaseException | type[BaseException] = ValueError) -> str:
    raise error


class NoSuchOrder(NotFound):
    """An HTTP error of the application's own."""


def handled(app: Flask) -> Callable[[], Any]:
    app.register_error_handler(KeyError, lambda _: ("no such order", 404))
    return lambda: fail(KeyError)


def handled_badly(app: Flask) -> Callable[[], Any]:
    def explain(_: Exception) -> str:
        return str(1 / 0)

    app.register_error_handler(KeyError, explain)
    return lambda: fail(KeyError)


def half_way() -> Iterator[str]:
    yield "half"
    fail(OSError)


def signalled(app: Flask) -> Callable[[], Any]:
    def view() -> tuple[str, int]:
        try:
            fail(KeyError)
        except KeyError as error:
            got_request_exception.send(app, exception=error)
        return "sorry", 409

    return view


def handled_before(app: Flask) -> Callable[[], Any]:
    app.register_error_handler(KeyError, lambda _: "never mind")

    def view() -> Any:
        try:
            fail(KeyError)
        except KeyError as error:
            app.handle_user_exception(error)
        abort(404)

    return view


def just(view: Callable[[], Any]) -> Callable[[Flask], Callable[[], Any]]:
    return lambda _: view


@pytest.mark.parametrize(
    ("view_of", "expected"),
    [
        (just(lambda: fail()), {("ValueError", "fail"): 1}),
        (just(lambda: fail(SystemExit(1))), {("SystemExit", "fail"): 1}),
        (handled, {("KeyError", "fail"): 1}),
        (handled_badly, {("ZeroDivisionError", "explain"): 1}),
        (just(half_way), {("OSError", "fail"): 1}),
        (signalled, {("KeyError", "fail"): 1}),
        (handled_before, {}),
        (just(lambda: abort(404)), {}),
        (just(lambda: abort(500)), {}),
        (just(lambda: fail(NoSuchOrder)), {}),
        (just(lambda: Conflict()), {}),
        (just(lambda: ("broken", 500)), {}),
        (just(lambda: "well"), {}),
    ],
    ids=[
        "raised", "SystemExit", "handled", "raised by a handler", "raised half-way", "signalled and answered",
        "handled before abort 404", "abort 404", "abort 500", "an HTTP error of its own",
        "an HTTP error returned", "500 returned", "200",
    ],
)  # fmt: skip
def test_what_is_counted(view_of: Callable[[Flask], Any], expected: dict[tuple[str, str], float]) -> None:
    """As an error of its type, too: HTTP errors alone are in no group."""
    app, exporter = application()
    app.add_url_rule("/view", "view", view_of(app))

    call(app, "/view")

    assert groups(exporter) == expected
    assert [(group.fingerprint.error_type, group.count) for group in exporter.core.errors.read()] == [
        (error_type, count) for (error_type, _), count in expected.items()
    ]
    types = {
        labels[3]: count for labels, count in counted(exporter, "flask_http_request_errors_total").items()
    }
    assert {error_type: types[error_type] for error_type, _ in expected} == {
        error_type: count for (error_type, _), count in expected.items()
    }
    assert counted(exporter, "flask_exporter_failures_total") == {}


def test_an_http_error_that_a_handler_of_errors_raises_is_one_that_nobody_handles() -> None:
    app, exporter = application()
    app.register_error_handler(KeyError, lambda _: abort(404))
    app.add_url_rule("/view", "view", lambda: fail(KeyError))

    assert call(app, "/view").status[:3] == "500"
    assert groups(exporter) == {("NotFound", "<lambda>"): 1}


def test_a_view_that_is_not_to_be_measured_is_in_no_group() -> None:
    app, exporter = application()
    app.add_url_rule("/view", "view", exporter.do_not_track()(lambda: fail()))

    call(app, "/view")

    assert (groups(exporter), exporter.core.errors.read()) == ({}, [])


def test_families_under_two_prefixes_count_the_same_and_the_groups_once() -> None:
    app, exporter = application()
    exporter.export_defaults(prefix="other", app=app)
    app.add_url_rule("/view", "view", lambda: fail())

    call(app, "/view")
    call(app, "/view")

    for prefix in ("flask", "other"):
        assert groups(exporter, f"{prefix}_http_request_error_group_total") == {("ValueError", "fail"): 2}
    (group,) = exporter.core.errors.read()
    assert group.count == 2


def test_without_the_families_of_our_own_there_are_no_groups() -> None:
    app, exporter = application(extended=False)
    app.add_url_rule("/view", "view", lambda: fail())

    assert call(app, "/view").status[:3] == "500"
    assert (groups(exporter), exporter.core.errors.read()) == ({}, [])


def test_groups_that_find_no_room_are_counted_together() -> None:
    app, exporter = application()
    for number in range(70):
        space: dict[str, Any] = {"__name__": "shop"}
        exec(compile(f"def view{number}(): 1 / 0", "/srv/shop/views.py", "exec"), space)
        app.add_url_rule(f"/view{number}", f"view{number}", space[f"view{number}"])

    for number in range(70):
        call(app, f"/view{number}")

    assert len(counted(exporter, FAMILY)) == 64
    assert counted(exporter, FAMILY)["_other", "_other", "_other"] == 7


@pytest.mark.parametrize("name", ["note", "of"])
def test_a_failure_in_finding_the_group_changes_no_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app, exporter = application()
    app.add_url_rule("/view", "view", handled(app))
    monkeypatch.setattr(Fingerprints, name, Raises())

    assert call(app, "/view").status[:3] == "404"
    assert counted(exporter, "flask_exporter_failures_total") == {("error_groups",): 1}
    assert len(counted(exporter, "flask_http_request_errors_total")) == 1


@pytest.mark.parametrize(
    "error", [ValueError(), NoSuchOrder()], ids=["unhandled", "an HTTP error that is trapped"]
)
def test_an_exception_that_nobody_handles_is_looked_at_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though Flask asks for a handler first, and then gives up."""
    app, exporter = application()
    app.config["TRAP_HTTP_EXCEPTIONS"] = True
    app.add_url_rule("/view", "view", lambda: fail(error))
    notes: list[BaseException] = []
    note = Fingerprints.note

    def watched(self: Fingerprints, observation: Observation, error: BaseException) -> None:
        notes.append(error)
        note(self, observation, error)

    monkeypatch.setattr(Fingerprints, "note", watched)

    assert call(app, "/view").status[:3] == "500"
    assert notes == [error]
    assert groups(exporter) == {(type(error).__name__, "fail"): 1}


def test_an_exception_that_was_answered_is_not_kept() -> None:
    """Its frames hold the values of all variables."""
    app, exporter = application()
    alive = weakref.WeakSet[Any]()

    class Order:
        pass

    def stream() -> Iterator[str]:
        gc.collect()
        yield str(len(alive))

    @app.errorhandler(KeyError)
    def explain(_: KeyError) -> Any:
        return app.response_class(stream())

    @app.get("/view")
    def view() -> str:
        order = Order()
        alive.add(order)
        return fail(KeyError)

    assert call(app, "/view").body == b"0"
    assert groups(exporter) == {("KeyError", "fail"): 1}


def test_an_exception_that_nobody_handles_is_not_kept_when_its_request_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though its server has not closed it yet."""
    app, exporter = application()
    monkeypatch.setattr(app.logger, "disabled", True)  # pytest keeps the records
    alive = weakref.WeakSet[Any]()

    class Order:
        pass

    @app.get("/view")
    def view() -> str:
        order = Order()
        alive.add(order)
        return fail(KeyError)

    body: Any = app(environ("/view"), lambda *_: lambda _: None)
    assert b"Internal Server Error" in b"".join(body)
    gc.collect()

    assert list(alive) == []
    body.close()
    assert groups(exporter) == {("KeyError", "fail"): 1}


def test_log_lines_carry_the_group(tmp_path: Path) -> None:
    """That of the request, and the record of its exception, whoever logs it."""
    log = tmp_path / "requests.jsonl"
    app, exporter = application(request_log=str(log))

    @app.errorhandler(KeyError)
    def explain(_: KeyError) -> tuple[str, int]:
        app.logger.exception("handled")
        return "no", 404

    app.add_url_rule("/boom", "boom", lambda: fail(ValueError("secret")))
    app.add_url_rule("/missing", "missing", lambda: fail(KeyError("secret")))
    app.add_url_rule("/half", "half", half_way)
    for path in ("/boom", "/missing", "/half", "/nowhere", "/orders/1"):
        call(app, path)
    exporter.core.request_log.close()

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    group_of = {
        group.fingerprint.error_type: group.fingerprint.error_group for group in exporter.core.errors.read()
    }
    assert len(set(group_of.values())) == 3
    assert [(line["error_type"], line["error_group"], "traceback" in line) for line in lines] == [
        ("ValueError", group_of["ValueError"], True),
        ("ValueError", group_of["ValueError"], False),
        ("KeyError", group_of["KeyError"], True),
        ("KeyError", group_of["KeyError"], False),
        ("OSError", group_of["OSError"], False),
        ("OSError", group_of["OSError"], True),
        ("NotFound", "", False),
        ("", "", False),
    ]


# Fingerprints


def error_of(raises: Callable[[], object]) -> BaseException:
    try:
        raises()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def fingerprint(error: BaseException) -> tuple[str, str]:
    """Type and function."""
    found = Fingerprints(Places(), ErrorGroups()).of(error)
    return found.error_type, found.where.rpartition(".")[2].rpartition(":")[2]


def wrap() -> None:
    try:
        fail()
    except ValueError as error:
        raise RuntimeError("wrapped") from error


def clean_up() -> None:
    try:
        fail()
    except ValueError:
        dict[str, str]()["secret"]


def test_a_place_is_that_of_the_cause_and_not_of_what_was_being_handled() -> None:
    assert fingerprint(error_of(wrap)) == ("RuntimeError", "fail")
    assert fingerprint(error_of(clean_up)) == ("KeyError", "clean_up")


def shielded(view: Callable[[], Any]) -> Callable[[], Any]:
    @wraps(view)
    def shield() -> Any:
        return view()

    return shield


class Base(MethodView):
    def dispatch_request(self, **values: Any) -> Any:
        return super().dispatch_request(**values)


class First(Base):
    def get(self) -> str:
        return fail()


class Second(Base):
    def get(self) -> str:
        return fail()


class Page(MethodView):
    def get(self) -> str:
        return self.text()

    def text(self) -> str:
        raise NotImplementedError


class FirstPage(Page):
    def text(self) -> str:
        return fail()


class SecondPage(Page):
    def text(self) -> str:
        return fail()


@pytest.mark.parametrize(
    "views",
    [
        [shielded(lambda: fail()), shielded(lambda: fail())],
        [First.as_view("first"), Second.as_view("second")],
        [FirstPage.as_view("first"), SecondPage.as_view("second")],
        [lambda: None, lambda: None],
    ],
    ids=["a decorator and a helper", "a base class and a helper", "an inherited method", "no answer"],
)
def test_views_are_told_apart_whatever_they_share(views: list[Callable[[], Any]]) -> None:
    app, exporter = application()
    for name, view in zip("ab", views, strict=True):
        app.add_url_rule(f"/{name}", name, view)
    for path in ("/a", "/b", "/a", "/b"):
        call(app, path)

    assert list(counted(exporter, FAMILY).values()) == [2, 2]


def test_an_error_before_the_view_is_one_for_all_views() -> None:
    app, exporter = application()
    app.before_request(lambda: fail())
    app.add_url_rule("/view", "view", lambda: "")
    call(app, "/view")
    call(app, "/orders/1")

    assert groups(exporter) == {("ValueError", "fail"): 2}


def attempt(left: int) -> None:
    try:
        fail()
    except ValueError:
        if left:
            attempt(left - 1)
        raise


def last_attempt(attempts: int) -> None:
    last = None
    for _ in range(attempts):
        error = error_of(fail)
        error.__cause__ = last
        last = error
    raise RuntimeError("gave up") from last


@pytest.mark.parametrize("attempts", [attempt, last_attempt])
def test_the_number_of_attempts_does_not_matter(attempts: Callable[[int], None]) -> None:
    fingerprints = Fingerprints(Places(), ErrorGroups())

    assert len({fingerprints.of(error_of(partial(attempts, number))) for number in range(1, 6)}) == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no groups of exceptions")
def test_the_order_in_which_tasks_fail_does_not_matter() -> None:
    errors = [error_of(partial(fail, kind)) for kind in (KeyError, OSError, ValueError)]
    group: Any = vars(builtins)["ExceptionGroup"]
    fingerprints = Fingerprints(Places(), ErrorGroups())

    found = {fingerprints.of(group("", order)) for order in permutations(errors)}

    assert [(each.error_type, each.where) for each in found] == [("ExceptionGroup", f"{__name__}:fail")]


def test_an_error_in_a_block_is_that_of_its_own_template(tmp_path: Path) -> None:
    """And not of the one that it extends."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/base.html").write_text("{% block body %}{% endblock %}")
    (tmp_path / "templates/child.html").write_text(
        "{% extends 'base.html' %}{% block body %}{{ missing.name }}{% endblock %}"
    )
    app, exporter = application(flask={"root_path": str(tmp_path)})
    app.add_url_rule("/view", "view", lambda: render_template("child.html"))
    call(app, "/view")

    assert [where for _, _, where in counted(exporter, FAMILY)] == ["templates/child.html"]


class UnspeakableError(Exception):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class OddError(Exception):
    exceptions = (ValueError(),)


@pytest.mark.parametrize("kind", [UnspeakableError, OddError])
def test_an_error_is_not_asked_for_attributes_of_its_own(kind: type[Exception]) -> None:
    assert fingerprint(error_of(partial(fail, kind))) == (kind.__name__, "fail")
    assert kind.__name__ in traceback_of(error_of(partial(fail, kind)))


def test_an_error_that_was_never_raised_has_no_place() -> None:
    assert fingerprint(ValueError()) == ("ValueError", "-")


def test_an_error_in_libraries_alone_has_the_place_of_the_library() -> None:
    app, exporter = application()
    app.before_request(partial(json.loads, "{"))

    call(app, "/orders/1")

    ((_, error_type, where),) = counted(exporter, FAMILY)
    assert (error_type, where.replace("JSONDecoder.", "")) == ("JSONDecodeError", "json.decoder:raw_decode")


def test_a_chain_that_bites_its_tail_has_an_end() -> None:
    first, second = error_of(fail), error_of(wrap)
    first.__cause__, second.__cause__ = second, first

    assert fingerprint(first) == ("ValueError", "wrap")
    assert traceback_of(first).count("Traceback (most recent call last)") == 2

    third = error_of(fail)
    third.__cause__ = first
    assert traceback_of(third).count("Traceback (most recent call last)") == 3


def test_a_long_chain_and_a_deep_recursion_are_cut() -> None:
    def down(depth: int) -> None:
        if depth:
            down(depth - 1)
        fail()

    error = error_of(lambda: down(700))
    last = error
    for _ in range(50):
        last.__cause__ = error_of(fail)
        last = last.__cause__

    assert fingerprint(error) == ("ValueError", "fail")
    assert traceback_of(error).count("Traceback (most recent call last)") == 8
    assert len(traceback_of(error)) < 10_000


@pytest.mark.parametrize(("at", "where"), [(90, "dip"), (150, "descend"), (210, "dip")])
def test_of_very_many_frames_the_first_and_the_last_ones_count(at: int, where: str) -> None:
    """Of 300 at least 90 each."""

    def descend(depth: int) -> None:
        if depth == 300:
            raise ValueError
        (dip if depth == at else descend)(depth + 1)

    def dip(depth: int) -> None:
        descend(depth)

    assert fingerprint(error_of(lambda: descend(0))) == ("ValueError", where)


def test_errors_that_libraries_come_to_by_other_ways_are_told_apart() -> None:
    """Where no function of the application is on the way."""
    fingerprints = Fingerprints(Places(), ErrorGroups())

    def group(raises: Callable[[], object]) -> Fingerprint:
        error = error_of(raises)
        assert error.__traceback__ is not None
        return fingerprints.of(error.with_traceback(error.__traceback__.tb_next))

    found = [group(partial(json.loads, "{")), group(partial(json.JSONDecoder().decode, "{"))]

    assert found[0].where == found[1].where
    assert found[0].error_group != found[1].error_group


def test_a_traceback_has_neither_messages_nor_values() -> None:
    text = traceback_of(error_of(lambda: clean_up()))

    assert "secret" not in text.replace('()["secret"]', "")
    assert text.startswith("Traceback (most recent call last):\n")
    assert "\nValueError\n\nDuring handling of the above exception" in text
    assert text.endswith("\nKeyError\n")


def test_caches_are_bounded() -> None:
    """Those of classes, and those of code that an application makes as it goes."""
    fingerprints = Fingerprints(Places(), ErrorGroups())
    codes = []
    for number in range(5000):
        space: dict[str, Any] = {"__name__": "shop"}
        exec(f"class Error{number}(Exception): pass\ndef view(): raise Error{number}", space)
        fingerprints.of(error_of(space["view"]))
        codes.append(weakref.ref(space["view"].__code__))
        del space
    gc.collect()

    assert len(fingerprints._fingerprints) <= 2000
    assert sum(code() is not None for code in codes) < 5000
