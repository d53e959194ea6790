"""Every error is counted once, with the status that the client sees and the class of what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, abort, got_request_exception, make_response, stream_with_context
from flask import request as flask_request
from werkzeug.exceptions import Conflict, InternalServerError, NotFound, ServiceUnavailable
from werkzeug.routing import RequestRedirect

from tests.rig.wsgi import RULE, Clock, Counts, application, call, counted


@pytest.mark.parametrize("refuse", [lambda: abort(403), lambda: ("no", 403)], ids=["abort", "return"])
def test_an_early_403_is_counted_and_timed_with_its_rule(refuse: Callable[[], Any], clock: Clock) -> None:
    app, exporter = application()

    @app.before_request
    def gate() -> Any:
        clock.advance(0.25)
        return refuse()

    assert call(app, "/orders/7").status == "403 FORBIDDEN"
    counts = Counts(exporter)
    counts.are("GET", RULE, "403", "Forbidden")
    assert counts.seconds == {("GET", RULE, "403"): 0.25}


@pytest.mark.parametrize("propagate", [False, True])
def test_an_unhandled_exception_is_one_500(propagate: bool, clock: Clock) -> None:
    app, exporter = application()
    app.config["PROPAGATE_EXCEPTIONS"] = propagate

    @app.get("/boom")
    def boom() -> str:
        clock.advance(0.5)
        raise ValueError("bad")

    answer = call(app, "/boom")
    assert (answer.status, type(answer.error)) == (
        ("", ValueError) if propagate else ("500 INTERNAL SERVER ERROR", type(None))
    )
    counts = Counts(exporter)
    counts.are("GET", "/boom", "500", "ValueError", exceptions=1)
    assert counts.seconds == {("GET", "/boom", "500"): 0.5}


def test_a_handled_exception_has_the_status_of_its_handler_and_its_own_class() -> None:
    app, exporter = application()

    @app.errorhandler(KeyError)
    def explain(error: KeyError) -> tuple[str, int]:
        return f"missing {error}", 400

    @app.get("/boom")
    def boom() -> str:
        raise KeyError("name")

    assert call(app, "/boom").status == "400 BAD REQUEST"
    Counts(exporter).are("GET", "/boom", "400", "KeyError")


def test_an_exception_handled_into_a_200_is_still_an_error() -> None:
    app, exporter = application()
    app.register_error_handler(KeyError, lambda _: "never mind")

    @app.get("/boom")
    def boom() -> str:
        raise KeyError("name")

    assert call(app, "/boom").status == "200 OK"
    Counts(exporter).are("GET", "/boom", "200", "KeyError")


@pytest.mark.parametrize(
    ("view", "status", "error"),
    [
        (lambda: abort(500), "500", "InternalServerError"),
        (lambda: abort(404), "404", "NotFound"),
        (lambda: abort(make_response("late", 409)), "409", "Conflict"),
        (lambda: ("slow down", 429), "429", "TooManyRequests"),
        (lambda: Conflict(), "409", "Conflict"),
        (lambda: ("bad", 400), "400", "BadRequest"),
        (lambda: ("odd", 499), "499", "HTTPException"),
        (lambda: ("teapot", 599), "599", "HTTPException"),
    ],
    ids=["abort 500", "abort 404", "abort response", "return 429", "return Conflict", "400", "499", "599"],
)
def test_an_http_error_has_its_class_and_is_no_exception(
    view: Callable[[], Any], status: str, error: str
) -> None:
    app, exporter = application()
    app.add_url_rule("/view", "view", view)

    assert call(app, "/view").status[:3] == status
    Counts(exporter).are("GET", "/view", status, error)


def test_a_redirect_that_is_raised_is_no_error() -> None:
    app, exporter = application()

    @app.get("/old")
    def old() -> str:
        raise RequestRedirect("/new")

    assert call(app, "/old").status == "308 PERMANENT REDIRECT"
    Counts(exporter).are("GET", "/old", "308")


def test_a_subclass_of_an_http_error_is_named_as_the_application_names_it() -> None:
    class NoSuchOrder(NotFound):
        pass

    app, exporter = application()

    @app.get("/view")
    def view() -> str:
        raise NoSuchOrder

    assert call(app, "/view").status == "404 NOT FOUND"
    Counts(exporter).are("GET", "/view", "404", "NoSuchOrder")


def test_an_error_inside_an_errorhandler_is_the_one_that_counts() -> None:
    app, exporter = application()

    @app.errorhandler(KeyError)
    def explain(error: KeyError) -> str:
        raise ZeroDivisionError from error

    @app.get("/boom")
    def boom() -> str:
        raise KeyError("name")

    assert call(app, "/boom").status == "500 INTERNAL SERVER ERROR"
    Counts(exporter).are("GET", "/boom", "500", "ZeroDivisionError", exceptions=1)


def test_an_error_inside_the_handler_of_500_leaves_the_application_and_is_counted_once() -> None:
    app, exporter = application()

    @app.errorhandler(500)
    def explain(_: Exception) -> str:
        raise ZeroDivisionError

    @app.get("/boom")
    def boom() -> str:
        raise KeyError("name")

    assert isinstance(call(app, "/boom").error, ZeroDivisionError)
    Counts(exporter).are("GET", "/boom", "500", "KeyError", exceptions=1)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_an_exit_out_of_a_view_is_counted_with_its_rule(error: BaseException) -> None:
    """gunicorn ends a view that is too slow with SystemExit, which no handler of Flask sees."""
    app, exporter = application()

    @app.get("/boom")
    def boom() -> str:
        raise error

    assert call(app, "/boom").error is error
    # A request that its process dies of stays in progress, for as long as the exception is under way.
    assert counted(exporter, "flask_http_requests_in_progress") == {(): 1}
    error.__traceback__ = None
    Counts(exporter).are("GET", "/boom", "500", type(error).__name__, exceptions=1)


@pytest.mark.parametrize("hook", ["before_request", "after_request"])
def test_an_exception_in_a_hook_is_one_500(hook: str) -> None:
    app, exporter = application()

    def broken(*_: Any) -> Any:
        raise ValueError(hook)

    getattr(app, hook)(broken)

    assert call(app, "/orders/7").status == "500 INTERNAL SERVER ERROR"
    Counts(exporter).are("GET", RULE, "500", "ValueError", exceptions=1)


def test_an_exception_in_a_teardown_is_the_500_that_the_server_answers() -> None:
    """`start_response(200)` was called, but no byte was sent: a server answers 500."""
    app, exporter = application()

    @app.teardown_request
    def broken(_: BaseException | None) -> None:
        raise ValueError("teardown")

    assert isinstance(call(app, "/orders/7").error, ValueError)
    Counts(exporter).are("GET", RULE, "500", "ValueError", exceptions=1)


# Signals


def answering(error: Exception, status: int) -> tuple[Flask, Any]:
    """An application that signals an error and answers it itself, as the extensions for APIs do."""
    app, exporter = application()

    @app.get("/view")
    def view() -> tuple[str, int]:
        got_request_exception.send(app, exception=error)
        return "sorry", status

    return app, exporter


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound(), 404),
        (Conflict(), 409),
        (KeyError("mapped"), 409),
        (ServiceUnavailable(), 503),
        (TimeoutError(), 504),
        (InternalServerError(), 500),
        (KeyError("ignored"), 200),
    ],
    ids=repr,
)
def test_an_error_that_is_signalled_and_answered_is_no_exception(error: Exception, status: int) -> None:
    app, exporter = answering(error, status)

    assert call(app, "/view").status[:3] == str(status)
    Counts(exporter).are("GET", "/view", str(status), type(error).__name__)
    (recorded,) = exporter.core.flight_recorder.read()
    assert recorded.failed == (status >= 500)


@pytest.mark.parametrize("error", [KeyError("bug"), NotFound()], ids=repr)
def test_an_error_that_is_signalled_and_answered_with_a_500_was_not_handled(error: Exception) -> None:
    app, exporter = answering(error, 500)

    call(app, "/view")

    Counts(exporter).are("GET", "/view", "500", type(error).__name__, exceptions=1)


def test_an_error_that_is_signalled_after_the_answer_has_begun_is_counted_each_time() -> None:
    """Though the status of the answer is well known."""
    app, exporter = application()

    @app.get("/rows")
    def rows() -> Response:
        def chunks() -> Iterator[str]:
            yield "row"
            got_request_exception.send(app, exception=KeyError("row"))
            yield "sorry"

        return Response(stream_with_context(chunks() if flask_request.args else iter(["row"])))

    call(app, "/rows")
    for _ in range(2):
        assert call(app, "/rows", variables={"QUERY_STRING": "all=1"}).body == b"rowsorry"

    counts = Counts(exporter)
    assert counts.durations == {("GET", "/rows", "200"): 3}
    assert counts.errors == {("GET", "/rows", "200", "KeyError"): 2}
    assert counts.exceptions == {}


def test_an_exception_in_what_a_middleware_asks_for_besides_is_one_of_its_request() -> None:
    """Though the status of the answer is well known."""

    def warming(inner: Any) -> Any:
        def answer(variables: Any, start_response: Any) -> Any:
            body = inner(variables, start_response)
            if variables["QUERY_STRING"]:
                call(lambda _, start: inner({**variables, "PATH_INFO": "/boom"}, start))
            return body

        return answer

    app, exporter = application(wrap=warming)
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))
    for query in "", "warm", "warm":
        assert call(app, "/orders/7", variables={"QUERY_STRING": query}).body == b"xxxxxxx"

    counts = Counts(exporter)
    assert counts.durations == {("GET", RULE, "200"): 3}
    assert counts.errors == {("GET", RULE, "200", "ZeroDivisionError"): 2}
    assert counts.exceptions == {("GET", "500"): 2}


def test_a_redirect_that_is_signalled_is_no_error() -> None:
    app, exporter = answering(RequestRedirect("/new"), 308)

    call(app, "/view")

    Counts(exporter).are("GET", "/view", "308")


def test_an_error_that_is_signalled_and_raised_after_all_was_not_handled() -> None:
    app, exporter = application()
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.get("/view")
    def view() -> str:
        got_request_exception.send(app, exception=KeyError("first"))
        raise ValueError("then")

    assert isinstance(call(app, "/view").error, ValueError)
    Counts(exporter).are("GET", "/view", "500", "ValueError", exceptions=1)


def test_an_unhandled_exception_is_one_whatever_the_handler_of_500_answers() -> None:
    """As in the parent."""
    app, exporter = application()
    app.register_error_handler(500, lambda _: ("later", 503))
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))

    assert call(app, "/boom").status == "503 SERVICE UNAVAILABLE"
    Counts(exporter).are("GET", "/boom", "503", "ZeroDivisionError", exceptions=1)


def test_a_signal_outside_of_a_request_is_nobodys() -> None:
    app, exporter = application()

    with app.app_context():
        got_request_exception.send(app, exception=ValueError("job"))
    got_request_exception.send(app, exception=ValueError("job"))
    with app.test_request_context():
        got_request_exception.send(app, exception=ValueError("shell"))

    assert Counts(exporter).total == {}


def test_a_signal_after_the_request_has_been_recorded_changes_nothing() -> None:
    app, exporter = application()
    contexts = []

    @app.get("/job")
    def job() -> str:
        contexts.append(app.request_context(flask_request.environ))
        return "started"

    call(app, "/job")
    with contexts[0]:
        got_request_exception.send(app, exception=ValueError("job"))

    Counts(exporter).are("GET", "/job", "200")
