"""The back door: requests that come to Flask past the middleware.

Code that keeps `app.wsgi_app` before the exporter replaces it, such as connexion 3 and
`ProxyFix(app.wsgi_app)`, calls the application without its measurement. Flask's own steps for each request
can still be hooked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from flask import Flask, has_request_context, request

from exporter.measure.exchange import Exchange
from exporter.measure.middleware import Middleware
from exporter.worker.failures import logger

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask.ctx import RequestContext


class BackDoor:
    """Measures the requests of one application that its middleware has not seen."""

    def __init__(self, app: Flask, middleware: Middleware, *, warn: bool) -> None:
        """Put a hook into the application; the others follow when the first request comes this way.

        `warn` says whether that request is worth a line in the log.
        """
        self._app = app
        self._middleware = middleware
        self._key = f"exporter.visit.{id(self)}"
        self._open = False
        self._warns = warn
        request_context, key, outcomes = app.request_context, middleware.key, middleware.outcomes

        def watch(environ: WSGIEnvironment) -> RequestContext:
            # Flask's first step with each request; costs 0.1 µs. Tests and shells make contexts, too.
            context = request_context(environ)
            exchange = environ.get(key)
            if (exchange is None or exchange.outcomes is not outcomes) and not middleware.lets_pass(environ):
                self._receive(context, environ)
            return context

        app.request_context = watch  # type: ignore[method-assign]

    def _receive(self, context: RequestContext, environ: WSGIEnvironment) -> None:
        if not self._open:
            self._open = True
            app = self._app
            app.full_dispatch_request = self._wrap(app.full_dispatch_request)  # type: ignore[method-assign]
            app.handle_exception = self._wrap(app.handle_exception)  # type: ignore[method-assign]
        environ[self._key] = visit = _Visit(self._warn)
        pop = context.pop

        def pop_and_leave(*args: Any) -> None:
            vars(context).pop("pop", None)  # leaves no reference cycle
            try:
                pop(*args)
            except BaseException as error:
                visit.fail(error)
                raise
            if not visit.has_answered:
                visit.leave(args[0] if args else None)

        with suppress(AttributeError):
            context.pop = pop_and_leave  # type: ignore[assignment, method-assign]

    def _wrap(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a method of Flask that returns a response: the visit takes the place of the response."""

        def answer_visit(*args: Any) -> Any:
            visit: _Visit | None = request.environ.get(self._key) if has_request_context() else None
            if visit is None or not self._enters(visit, request.environ):
                return answer(*args)
            visit.response = answer(*args)
            return visit

        return answer_visit

    def _enters(self, visit: _Visit, environ: WSGIEnvironment) -> bool:
        """Whether this is a request to be measured."""
        if not visit.has_begun:
            visit.has_begun = True
            visit.exchange = self._middleware.enter(environ, visit.start)
        return visit.exchange is not None

    def _warn(self) -> None:
        if not self._warns:
            return
        self._warns = False
        with suppress(Exception):  # a broken log handler must not reach the response
            logger.warning(
                "requests come to %r past its exporter, because its wsgi_app was taken before: they are "
                "measured from Flask on, without what stands before it. Make the exporter first",
                self._app.name,
            )


class _Visit:
    """One request through the back door; it takes the place of its own response."""

    exchange: Exchange | None = None
    response: Any = None
    has_begun = False
    has_answered = False

    def __init__(self, warn: Callable[[], None]) -> None:
        self.start = perf_counter()
        self._warn = warn

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer like the response, and measure the answer."""
        exchange = self.exchange
        assert exchange is not None  # noqa: S101  a visit that is not measured is no response
        self.has_answered = True
        if exchange.recorded:  # a view has called Flask's steps itself, and returns the response
            return self.response(environ, start_response)  # type: ignore[no-any-return]
        self._warn()
        exchange.start_response = start_response
        try:
            return exchange.take(self.response(environ, exchange.start))
        except BaseException as error:
            exchange.fail(error)
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)

    def fail(self, error: BaseException) -> None:
        """An exception leaves the application."""
        if self.exchange is not None:
            self.exchange.fail(error)

    def leave(self, error: BaseException | None) -> None:
        """The context ends without an answer to a server."""
        if error is not None:
            self.fail(error)
        elif self.exchange is not None:  # a test, and no server, wanted the response
            self.exchange.untracked = True
            self.exchange.record()
            self.exchange.outcomes.flight.leave(self.exchange)
