"""`FlaskExporter`: wires the measurements, the endpoints and the logs onto a Flask application."""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, jsonify, request
from prometheus_client import CollectorRegistry, Metric
from prometheus_flask_exporter import NO_PREFIX, PrometheusMetrics

from exporter.labels import default_values_of, group_of, request_of
from exporter.log.requestlog import RequestLog
from exporter.measure.exceptions import ErrorWatch, is_measured
from exporter.measure.exchange import EXCHANGE
from exporter.measure.instruments import Instruments
from exporter.measure.middleware import Middleware, Sink
from exporter.pages.access import Access
from exporter.pages.drain import draining
from exporter.pages.endpoints import OwnEndpoints
from exporter.pages.health import Health, Thresholds
from exporter.pages.monitoring import Monitoring, Source
from exporter.scrape.exemplars import Observed, of_requests
from exporter.scrape.exposition import Exposition
from exporter.settings import Settings
from exporter.store.workerfile import install
from exporter.worker.flightrecorder import FlightRecorder
from exporter.worker.live import Facts
from exporter.worker.worker import Worker, shared_directory

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["NO_PREFIX", "FlaskExporter"]

KEY = "flask_exporter"
UNSHARED = """\
Several workers serve this application and each counts for itself: these numbers would be one worker's.
Set PROMETHEUS_MULTIPROC_DIR to a directory for them to share before the server starts, and run gunicorn with
-c python:exporter.gunicorn, which prepares it.
"""

# Before any metric is declared: prometheus_client's own files end the process where the disk is full.
install()

_families: weakref.WeakKeyDictionary[CollectorRegistry, dict[str, Instruments]] = weakref.WeakKeyDictionary()


class FlaskExporter(PrometheusMetrics):  # type: ignore[misc, unused-ignore]
    """Measures every request of a Flask application and serves what a person or Prometheus asks about it.

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
        defaults_prefix: str = "flask",
        group_by: str | Callable[..., Any] | None = None,
        buckets: tuple[float, ...] | None = None,
        default_latency_as_histogram: bool = True,
        default_labels: Mapping[str, Any] | None = None,
        response_converter: Callable[..., Any] | None = None,
        excluded_paths: str | list[str] | None = None,
        exclude_user_defaults: bool = True,
        metrics_decorator: Callable[..., Any] | None = None,
        registry: CollectorRegistry | None = None,
        **settings: Any,
    ) -> None:
        inherited = {
            name: settings.pop(name) for name in ("static_labels", "group_by_endpoint") if name in settings
        }
        if path != "/metrics":
            settings["path"] = path
        self.settings = Settings.load(group_by=group_by, buckets=buckets, **settings)
        self._access = Access(self.settings)
        super().__init__(
            None,
            path=self.settings.path,
            export_defaults=export_defaults,
            defaults_prefix=defaults_prefix,
            group_by=self.settings.group_by,
            buckets=self.settings.buckets,
            default_latency_as_histogram=default_latency_as_histogram,
            default_labels=default_labels,
            response_converter=response_converter,
            excluded_paths=excluded_paths,
            exclude_user_defaults=exclude_user_defaults,
            metrics_decorator=metrics_decorator,
            registry=registry,
            **inherited,
        )
        self.app = app
        self._unshared = False
        self.directory = shared_directory()
        self.recent = FlightRecorder(self.settings.recent if self.settings.extended else 0, self.directory)
        self.request_log = RequestLog(self.settings)
        self.health = Health(
            Thresholds(
                self.settings.health_warning, self.settings.health_degraded, self.settings.health_min_requests
            ),
            window=self._window,
            draining=draining,
            uptime=self._uptime,
        )
        self.health_check = self.health.health_check
        self._facts = Facts(
            self.settings.app_version,
            (lambda: self.exposition.worker_files()) if self.directory else None,
        )
        self._prefix = "" if self._defaults_prefix == NO_PREFIX else f"{self._defaults_prefix}_"
        self._group = self.group_by.__name__ if callable(self.group_by) else str(self.group_by)
        if app is not None:
            self.init_app(app)

    @cached_property
    def worker(self) -> Worker:
        """What this process keeps for the registry; made when the first application comes."""
        worker = Worker.of(self.registry, self.directory)
        worker.live.add(self.health, self._facts)
        return worker

    @cached_property
    def exposition(self) -> Exposition:
        """What a scrape gets."""
        worker = self.worker
        return Exposition(
            self.registry,
            self.directory,
            [worker.live],
            observed=self._exemplars,
            failed=worker.failures.count,
            max_series=self.settings.max_series,
        )

    @classmethod
    def for_app_factory(cls, **kwargs: Any) -> FlaskExporter:
        """An exporter without an application; call `init_app(app)` for each."""
        return cls(None, **kwargs)

    def init_app(self, app: Flask) -> None:
        """Measure this application and register the endpoints on it.

        Raises RuntimeError if it has an exporter already.
        """
        if KEY in app.extensions:
            raise RuntimeError(
                f"{app.name!r} has a FlaskExporter already: use app.extensions[{KEY!r}], or call init_app "
                "once for each application"
            )
        app.extensions[KEY] = self
        if self.path:
            self.register_endpoint(self.path, app)
        with OwnEndpoints.of(app).registering():
            if self.settings.health_path:
                self._register_health(self.settings.health_path, app)
            if self.settings.monitoring_path:
                app.register_blueprint(
                    self._monitoring().blueprint(), url_prefix=self.settings.monitoring_path
                )
        self.request_log.attach(app)
        if self._export_defaults:
            self.export_defaults(
                self.buckets, self.group_by, self._default_latency_as_histogram, self._defaults_prefix, app
            )
        if not is_measured(app):
            app.wsgi_app = self._begun(app, app.wsgi_app)  # type: ignore[method-assign, assignment]

    def register_endpoint(self, path: str, app: Flask | None = None) -> None:
        """Serve the metrics on `path` of the application, for insiders."""
        app = app or self.app or current_app._get_current_object()  # type: ignore[attr-defined]

        @self.do_not_track()  # type: ignore[untyped-decorator]
        def prometheus_metrics() -> Any:
            refusal = self._access.refusal(request.environ)
            if refusal is not None:
                return Response(
                    refusal.message + "\n", refusal.status, refusal.headers, mimetype="text/plain"
                )
            if self._unshared:
                return Response(UNSHARED, 500, mimetype="text/plain")
            try:
                self.worker.tick(int(time.monotonic()))  # an idle worker would tell what was
                self.worker.count_noted()
                with self.worker.scrapes.time():
                    body, headers = self.exposition.render(
                        request.headers.get("Accept"),
                        request.args.getlist("name[]"),
                        request.headers.get("Accept-Encoding"),
                    )
            except Exception as error:
                self.worker.failures.count("scrape", error)
                return Response(f"The metrics cannot be read: {error}\n", 500, mimetype="text/plain")
            return body, 200, headers

        view = self._metrics_decorator(prometheus_metrics) if self._metrics_decorator else prometheus_metrics
        with OwnEndpoints.of(app).registering():
            app.route(path)(view)

    def generate_metrics(
        self, accept_header: str | None = None, names: list[str] | None = None
    ) -> tuple[str, str]:
        """The exposition and its content type, as in the parent."""
        body, headers = self.exposition.render(accept_header, names or [], None)
        return body.decode(), dict(headers)["Content-Type"]

    def export_defaults(
        self,
        buckets: Sequence[float] | None = None,
        group_by: str | Callable[..., Any] | None = None,
        latency_as_histogram: bool = True,
        prefix: str | None = "flask",
        app: Flask | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure the requests of the application under the given prefix, or under none with `NO_PREFIX`."""
        app = app or self.app or current_app._get_current_object()  # type: ignore[attr-defined]
        if kwargs.get("group_by_endpoint") is True:
            warnings.warn(
                "The `group_by_endpoint` argument of `PrometheusMetrics.export_defaults` is deprecated since "
                "0.4.0, please use the new `group_by` argument.",
                DeprecationWarning,
                stacklevel=2,
            )
            group_by = "endpoint"
        group_by = group_by or self.group_by
        prefix = prefix or self._defaults_prefix
        prefix = "" if prefix == NO_PREFIX else f"{prefix}_"
        labels = self._get_combined_labels(None)
        own = OwnEndpoints.of(app)
        first = not is_measured(app)
        if not first and prefix in ErrorWatch.of(app).keys:
            return
        instruments = self._instruments(
            prefix, group_by, labels.keys(), buckets, latency_as_histogram, first=first
        )
        if instruments is None:
            return
        ErrorWatch.of(app).keys[prefix] = key = EXCHANGE if first else f"{EXCHANGE}.{prefix}"

        def begin(environ: WSGIEnvironment) -> None:
            self._begin(own, environ)
            if group_by == "url_rule" and not labels.has_keys():
                instruments.prime(own.host_rules())

        app.wsgi_app = Middleware(  # type: ignore[method-assign]
            app.wsgi_app,
            instruments,
            key=key,
            own_paths=own.paths,
            begin=begin,
            request_of=request_of(app),
            excluded=self.excluded_paths or (),
            group_of=None if group_by == "url_rule" else group_of(group_by),
            extra_of=default_values_of(labels, app) if labels.has_keys() else None,
            trusted=self._access.from_proxy if self.settings.trusted_proxies else None,
            sinks=self._sinks() if first else [],
        ).measured

    def _begin(self, own: OwnEndpoints, environ: WSGIEnvironment) -> None:
        """What waits for the first request of a process."""
        self._unshared = bool(environ.get("wsgi.multiprocess")) and self.directory is None
        own.yield_to_host()
        self.worker.start()

    def _begun(self, app: Flask, wsgi_app: WSGIApplication) -> WSGIApplication:
        """The WSGI application of one whose requests are not measured; its endpoints must begin too."""
        own = OwnEndpoints.of(app)

        def begin_and_answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            try:
                self._begin(own, environ)
            except Exception as error:
                self.worker.failures.count("middleware", error)
            return wsgi_app(environ, start_response)

        return begin_and_answer

    def _instruments(
        self,
        prefix: str,
        group_by: str | Callable[..., Any],
        extra: tuple[str, ...],
        buckets: Sequence[float] | None,
        as_histogram: bool,
        *,
        first: bool,
    ) -> Instruments | None:
        """The families with this prefix; an application on a registry that has them shares them.

        None if they are another exporter's, which the parent takes for its own. `first` says whether the
        application has no others. Raises ValueError if they are there with other labels.
        """
        group = group_by.__name__ if callable(group_by) else group_by
        known = _families.setdefault(self.registry, {})
        if prefix not in known:
            try:
                self.info(
                    f"{prefix}exporter_info",
                    "Information about the Prometheus Flask exporter",
                    version=self.version,
                )
            except ValueError:
                warnings.warn(
                    f"the registry has {prefix}exporter_info from another exporter, so this application is "
                    "not measured: give it a registry or a defaults_prefix of its own",
                    stacklevel=4,
                )
                return None
            known[prefix] = made = Instruments(
                self.worker, self.registry, prefix=prefix, group=group, extra=extra,
                buckets=buckets or self.settings.buckets, as_histogram=as_histogram,
                extended=self.settings.extended, max_series=self.settings.max_series, first=first,
            )  # fmt: skip
            if self.settings.extended:
                self.worker.live.add(made.extremes)
        shape = (group, extra)
        if known[prefix].shape != shape:
            raise ValueError(
                f"the registry has {prefix}http_request_* with the labels {known[prefix].shape}, not "
                f"{shape}: give both applications the same group_by and default_labels, or one of them "
                "another defaults_prefix"
            )
        return known[prefix]

    def _sinks(self) -> list[Sink]:
        sinks: list[Sink] = []
        if self.settings.extended and self.settings.recent:
            sinks.append(("recent", self.recent.record))
        if self.request_log.on:
            sinks.append(("request_log", self.request_log.write))
        return sinks

    def _monitoring(self) -> Monitoring:
        return Monitoring(
            Source(self.recent.read, self._request_families, self._window, self._uptime),
            self._access,
            prefix=self._prefix,
            group=self._group,
        )

    def _request_families(self) -> Iterable[Metric]:
        if self.exposition.directory is not None:
            return [family.metric(values) for family, values in self.exposition.directory.merge()]
        used = ("total", "errors_total", "duration_seconds_count")
        found: Iterable[Metric] = self.registry.restricted_registry(
            [f"{self._prefix}http_request_{name}" for name in used]
        ).collect()
        return found

    def _exemplars(self) -> Iterable[Observed]:
        return of_requests(
            self.recent.read(),
            durations=f"{self._prefix}http_request_duration_seconds",
            errors=f"{self._prefix}http_request_errors",
            group=self._group,
        )

    def _window(self) -> tuple[int, int]:
        try:
            return self.worker.slots.totals(time.monotonic())
        except Exception as error:  # a probe must not end a service for what its exporter lacks
            self.worker.failures.count("health", error)
            return 0, 0

    def _uptime(self) -> float:
        return time.time() - self.recent.started()

    def _register_health(self, path: str, app: Flask) -> None:
        def insider() -> bool:
            return self._access.refusal(request.environ) is None

        for suffix, answer in (
            ("", lambda: self.health.report(insider())),
            ("/live", self.health.live),
            ("/ready", lambda: self.health.ready(insider())),
        ):
            app.add_url_rule(path + suffix, f"{KEY}_health{suffix.replace('/', '_')}", _json_view(answer))


def _json_view(answer: Callable[[], tuple[dict[str, Any], int]]) -> Callable[[], Any]:
    def view() -> Any:
        body, status = answer()
        return jsonify(body), status, {"Cache-Control": "no-store"}

    return view
