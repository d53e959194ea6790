"""`FlaskExporter`: plugs the parts into a Flask application."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, request
from flask.logging import default_handler
from prometheus_client import CollectorRegistry

from exporter.core import Core
from exporter.labels import clean
from exporter.measure.backdoor import BackDoor
from exporter.measure.exceptions import ErrorWatch
from exporter.measure.metrics import Shape
from exporter.measure.middleware import Middleware
from exporter.measure.outcomes import Outcomes
from exporter.observation import EXCHANGE, contexts
from exporter.pages.answers import Page
from exporter.parent import NO_PREFIX, Parent
from exporter.routes.flask import FlaskGrouping, context, rule_of, view_of
from exporter.settings import Settings
from exporter.state import KEY, State
from exporter.store.workerfile import install

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from typing_extensions import Unpack

    from exporter.settings import SettingsArguments

    class Arguments(SettingsArguments, total=False):
        """Settings, and the arguments that the parent class has deprecated."""

        static_labels: Mapping[str, Any]
        group_by_endpoint: bool

    class FactoryArguments(Arguments, total=False):
        """All arguments of the constructor but the application."""

        path: str | None
        export_defaults: bool
        defaults_prefix: str
        group_by: str | Callable[..., Any] | None
        buckets: Sequence[float] | None
        default_latency_as_histogram: bool
        default_labels: Mapping[str, Any] | None
        response_converter: Callable[..., Any] | None
        excluded_paths: str | list[str] | None
        exclude_user_defaults: bool
        metrics_decorator: Callable[..., Any] | None
        registry: CollectorRegistry | None


__all__ = ["NO_PREFIX", "FlaskExporter"]

_DEFAULT_PREFIX = "flask"
_OLD_ARGUMENTS = ("static_labels", "group_by_endpoint")
_GROUP_BY_ENDPOINT = (
    "The `group_by_endpoint` argument of `PrometheusMetrics.export_defaults` is deprecated since 0.4.0, "
    "please use the new `group_by` argument."
)

# Before any metric is declared: prometheus_client's own files end the process where the disk is full.
install()
contexts.append(context)


class FlaskExporter(Parent):
    """Measures every request of a Flask application and serves the results to Prometheus and to people.

    Takes everything that `prometheus_flask_exporter.PrometheusMetrics` takes; its decorators and methods work
    unchanged. `group_by` is `url_rule` by default, because raw paths are unbounded. Every field of
    `Settings` is a keyword argument too.

    Raises:
        SettingsError: an argument or an `EXPORTER_*` variable cannot be used.
        RuntimeError: the application has an exporter already.
    """

    def __init__(
        self,
        app: Flask | None = None,
        path: str | None = "/metrics",
        export_defaults: bool = True,
        defaults_prefix: str = _DEFAULT_PREFIX,
        group_by: str | Callable[..., Any] | None = None,
        buckets: Sequence[float] | None = None,
        default_latency_as_histogram: bool = True,
        default_labels: Mapping[str, Any] | None = None,
        response_converter: Callable[..., Any] | None = None,
        excluded_paths: str | list[str] | None = None,
        exclude_user_defaults: bool = True,
        metrics_decorator: Callable[..., Any] | None = None,
        registry: CollectorRegistry | None = None,
        **arguments: Unpack[Arguments],
    ) -> None:
        options: dict[str, Any] = {**arguments}
        old_arguments = {name: options.pop(name) for name in _OLD_ARGUMENTS if name in options}
        if path != "/metrics":
            options["path"] = path
        self.settings = settings = Settings.load(group_by=group_by, buckets=buckets, **options)
        super().__init__(
            None, settings.path, export_defaults, defaults_prefix, settings.group_by, settings.buckets,
            default_latency_as_histogram, default_labels, response_converter, excluded_paths,
            exclude_user_defaults, metrics_decorator, registry, **old_arguments,
        )  # fmt: skip
        self.app = app
        self.core = Core(
            settings,
            self.registry,
            prefix=self._beginning(self._defaults_prefix),
            group=_label(self.group_by),
            context=_application_context,
        )
        self.health_check = self.core.checks.health_check
        if app is not None:
            self.init_app(app)

    @classmethod
    def for_app_factory(cls, **arguments: Unpack[FactoryArguments]) -> FlaskExporter:
        """An exporter without an application; call `init_app(app)` for each."""
        return cls(None, **arguments)

    def init_app(self, app: Flask) -> None:
        """Measure this application and register the endpoints on it.

        Raises RuntimeError if it has an exporter already.
        """
        state = State.of(app)
        if state.exporter is not None:
            raise RuntimeError(
                f"{app.name!r} has a FlaskExporter already: use app.extensions[{KEY!r}].exporter, or call "
                "init_app once for each application"
            )
        state.exporter = self
        self.core.routes.add(partial(rule_of, app.url_map))
        self.core.renew()
        self.core.places.add(app.import_name, app.root_path)
        self.core.checks.next_application()
        if self.path:
            self.register_endpoint(self.path, app)
        with state.endpoints.registration():
            if self.settings.health_path:
                _register(app, self.settings.health_path, "health", self.core.health.pages())
            if self.settings.monitoring_path:
                _register(app, self.settings.monitoring_path, "monitoring", self.core.monitoring.pages())
        self.core.request_log.attach()
        if self.core.request_log.on:
            _log_through_root(app.logger, self.core.request_log.level)
        if self._export_defaults:
            self.export_defaults(
                self.buckets, self.group_by, self._default_latency_as_histogram, self._defaults_prefix, app
            )
        if state.exceptions is None:
            app.wsgi_app = self._wrap_unmeasured(app, app.wsgi_app)  # type: ignore[method-assign, assignment]

    def register_endpoint(self, path: str, app: Flask | None = None) -> None:
        """Serve the metrics on `path` of the application, for insiders."""
        app = app or self._current_app()

        @self.do_not_track()
        def prometheus_metrics() -> Response:
            return _response(self.core.metrics_page.answer)

        view = self._metrics_decorator(prometheus_metrics) if self._metrics_decorator else prometheus_metrics
        with State.of(app).endpoints.registration():
            _serve(app, path, None, view)

    def generate_metrics(
        self, accept_header: str | None = None, names: list[str] | None = None
    ) -> tuple[str, str]:
        """The exposition and its content type, as in the parent."""
        body, headers = self.core.exposition.render(accept_header, names or [], None)
        return body.decode(), dict(headers)["Content-Type"]

    def export_defaults(
        self,
        buckets: Sequence[float] | None = None,
        group_by: str | Callable[..., Any] | None = None,
        latency_as_histogram: bool = True,
        prefix: str | None = _DEFAULT_PREFIX,
        app: Flask | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure the requests of the application under the given prefix, or under none with `NO_PREFIX`."""
        app = app or self._current_app()
        if kwargs.get("group_by_endpoint") is True:
            warnings.warn(_GROUP_BY_ENDPOINT, DeprecationWarning, stacklevel=2)
            group_by = "endpoint"
        group_by = group_by or self.group_by
        state, labels = State.of(app), self._get_combined_labels(None)
        first = state.exceptions is None
        shape = Shape(
            prefix=self._beginning(prefix or self._defaults_prefix),
            group=_label(group_by),
            extra=labels.keys(),
            buckets=buckets or self.settings.buckets,
            as_histogram=latency_as_histogram,
        )
        if state.exceptions is not None and shape.prefix in state.exceptions.keys:
            return
        instruments = self.core.instruments(shape, first=first, version=self.version)
        if instruments is None:
            return
        key = EXCHANGE if first else f"{EXCHANGE}.{shape.prefix}"
        state.exceptions = state.exceptions or ErrorWatch(app)
        state.exceptions.keys[shape.prefix] = key
        can_prime = group_by == "url_rule" and not shape.extra
        outcomes = Outcomes(
            instruments,
            FlaskGrouping.of(app, group_by, labels),
            self.core.flight_recorder if first and self.settings.extended else None,
            self.core.sinks() if first else (),
            self.core.fingerprints(),
        )
        if first:
            self.core.slow.watch(outcomes, partial(view_of, app))

        def begin(environ: WSGIEnvironment) -> None:
            self._begin(app, environ)
            if can_prime:
                instruments.prime(state.endpoints.host_rules())

        middleware = Middleware(
            app.wsgi_app,
            instruments,
            outcomes,
            key=key,
            own_paths=state.endpoints.paths,
            begin=begin,
            exclusions=self.excluded_paths or (),
            is_trusted=self.core.access.from_proxy if self.settings.trusted_proxies else None,
        )
        app.wsgi_app = middleware.measure  # type: ignore[method-assign]
        BackDoor(app, middleware, warn=first)

    def _get_combined_labels(self, labels: Any) -> Any:
        """The labels of a decorator. Their values are cleaned, because a client may have chosen them."""
        collection = super()._get_combined_labels(labels)
        values_for = collection.values_for
        collection.values_for = lambda response: {
            name: clean(str(value)) for name, value in values_for(response).items()
        }
        return collection

    def _begin(self, app: Flask, environ: WSGIEnvironment) -> None:
        State.of(app).endpoints.yield_to_host()
        self.core.begin(environ, app.import_name)

    def _wrap_unmeasured(self, app: Flask, wsgi_app: WSGIApplication) -> WSGIApplication:
        """Wrap an unmeasured application, whose health and metrics pages still need the start-up work."""

        def begin_and_answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            try:
                self._begin(app, environ)
            except Exception as error:
                self.core.worker.failures.count("middleware", error)
            return wsgi_app(environ, start_response)

        return begin_and_answer

    def _beginning(self, prefix: str) -> str:
        """What the names of the request families begin with; the default is the setting's."""
        return {NO_PREFIX: "", _DEFAULT_PREFIX: self.settings.names}.get(prefix, f"{prefix}_")

    def _current_app(self) -> Flask:
        return self.app or current_app._get_current_object()  # type: ignore[attr-defined]


def _label(group_by: str | Callable[..., Any]) -> str:
    return group_by.__name__ if callable(group_by) else group_by


def _register(app: Flask, path: str, name: str, pages: Mapping[str, Page]) -> None:
    """Serve pages below a path of the application."""
    for suffix, page in pages.items():
        endpoint = f"{KEY}_{name}{suffix.replace('/', '_').replace('.', '_')}"
        _serve(app, path + suffix, endpoint, _view(page, endpoint))


def _view(page: Page, name: str) -> Callable[[], Response]:
    """A view with a name of its own, which Spectree, Flask-Limiter and others require."""

    def view() -> Response:
        return _response(page)

    view.__name__ = view.__qualname__ = name
    return view


def _serve(app: Flask, path: str, endpoint: str | None, view: Callable[[], Any]) -> None:
    """Serve a view on a path of every host; the endpoint is the view's name by default."""
    if not app.url_map.host_matching:
        app.add_url_rule(path, endpoint, view)
        return

    @wraps(view)
    def on_any_host(**_: str) -> Any:
        return view()

    app.add_url_rule(path, endpoint, on_any_host, host=f"<{KEY}_host>")


def _response(page: Page) -> Response:
    status, headers, body = page(request.environ)
    return Response(body, status, headers)


def _log_through_root(logger: logging.Logger, level: int) -> None:
    """Leave out Flask's own plain output: its lines can be forged with a line feed in the path."""
    logger.removeHandler(default_handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(level)


def _application_context() -> AbstractContextManager[Any]:
    """The application context of the caller, in which a health check runs."""
    return current_app._get_current_object().app_context() if current_app else nullcontext()  # type: ignore[attr-defined]
