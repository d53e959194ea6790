"""The core: it connects the parts of one service, and knows nothing of its framework."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from functools import cached_property, partial
from typing import TYPE_CHECKING, cast
from weakref import WeakMethod, WeakSet

from prometheus_client import CollectorRegistry, Gauge

from exporter.log.requestlog import RequestLog
from exporter.measure.fingerprints import Fingerprints
from exporter.measure.instruments import ExtendedInstruments, Instruments
from exporter.measure.metrics import ExtendedMetrics, Metrics, Shape
from exporter.measure.native import Natives
from exporter.measure.outcomes import Sink
from exporter.measure.slow import SlowRequests
from exporter.pages.access import Access
from exporter.pages.checks import Checks, Context
from exporter.pages.drain import draining
from exporter.pages.health import Health, Vitals
from exporter.pages.metrics import MetricsPage
from exporter.pages.monitoring import Monitoring
from exporter.pages.overview.overview import Overview
from exporter.pages.reports import Reports
from exporter.places import Places
from exporter.routes.table import Routes
from exporter.scrape.exemplars import Observed, of_requests
from exporter.scrape.exposition import Exposition
from exporter.scrape.sources import DirectorySource, NativeCounts, RegistrySource, Source
from exporter.settings import Settings, warn
from exporter.store import workerfile
from exporter.store.directory import WorkerDirectory, shared_path
from exporter.worker import deaths
from exporter.worker.errorgroups import ErrorGroups
from exporter.worker.facts import Facts
from exporter.worker.failures import logger
from exporter.worker.flightrecorder import FlightRecorder
from exporter.worker.peers import Peers
from exporter.worker.stackring import read_stacks
from exporter.worker.worker import Worker, capacity

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

UNSHARED = """\
Several processes serve this application and each counts for itself: these numbers would be those of one.
Start one worker, or set PROMETHEUS_MULTIPROC_DIR to a directory for them to share before the server starts:
gunicorn with -c python:exporter.gunicorn prepares it; for any other server make it anew before each start."""

UNPREPARED = """\
PROMETHEUS_MULTIPROC_DIR=%s has counts of a service that has ended, and no server's master prepares it,
so the totals go on from there, after a restart too. Run gunicorn with -c python:exporter.gunicorn, uWSGI
with shared-import = exporter.uwsgi, or empty the directory before each start."""

cores: WeakSet[Core] = WeakSet()
"""The cores of this process."""


class Core:
    """The parts of one service.

    The parts that belong to the registry are made at their first use, so an exporter without an application
    leaves the registry alone.
    """

    def __init__(
        self, settings: Settings, registry: CollectorRegistry, *, prefix: str, group: str, context: Context
    ) -> None:
        """`prefix` and `group` are those of the request families; health checks run inside a `context`.

        Raises:
            SettingsError: the request log cannot be written.
            TokenError: the token file cannot be used.
        """
        cores.add(self)
        self.settings = settings
        self.access = Access(settings)
        path = shared_path()
        self.directory = path and WorkerDirectory(path, settings.max_series, self._count_fold_error)
        counts = self.directory.counts if self.directory else None
        self.flight_recorder = FlightRecorder(settings.recent, path, prefix)
        self.routes = Routes()
        self.places = Places()
        reference = WeakMethod(self._count_group_error)  # the worker keeps the groups, but not its registry
        self.errors = ErrorGroups(
            path, settings.app_version, lambda error: (count := reference()) and count(error)
        )
        self.slow = SlowRequests(
            settings.slow if settings.extended else 0.0,
            self.places,
            lambda: self.flight_recorder.live,
            path,
            lambda error: self.worker.note("slow", error),
        )
        self.request_log = RequestLog(settings, self._note_log_error)
        self.checks = Checks(context, settings.names)
        self.health = Health(self.checks, Vitals(self.window, self.uptime, draining), self.access, settings)
        self._registry = registry
        self._prefix = prefix
        self._group = group
        self._facts = Facts(settings.app_version, counts, settings.names)
        self._peers = Peers()
        self._has_old_counts = bool(self.directory and _has_counts(self.directory, settings.names))

    @cached_property
    def worker(self) -> Worker:
        """The state of this process for the registry."""
        path = self.directory.path if self.directory else None
        files = workerfile if self.directory else None
        worker = Worker.of(self._registry, path, files, self.settings.names)
        worker.live.add(self.checks, self._facts)
        worker.flight_recorders.add(self.flight_recorder)
        worker.losses.routes.add(self.routes)
        worker.moves += [self.errors.move, self.slow.slowest.after_fork, self.slow.stacks.after_fork]
        return worker

    def renew(self) -> None:
        """Drop the parts of a registry that has been emptied, as tests do."""
        if "worker" in vars(self) and not self.worker.declared.complete:
            for name in ("worker", "source", "exposition", "metrics_page", "monitoring"):
                vars(self).pop(name, None)

    @cached_property
    def source(self) -> Source:
        """The place where a scrape finds its families."""
        if self.directory:
            return DirectorySource(self.directory, [self.worker.live], self._count_scrape_error)
        return RegistrySource(self._registry, self._count_scrape_error, partial(_native_counts, self.worker))

    @cached_property
    def exposition(self) -> Exposition:
        """The text of all families for a scrape."""
        return Exposition(self.source, self._exemplars, self._count_scrape_error)

    @cached_property
    def metrics_page(self) -> MetricsPage:
        """The page of the metrics."""
        return MetricsPage(self.exposition, self.access, self.worker, self._problem)

    @cached_property
    def monitoring(self) -> Monitoring:
        """The pages at and below `/monitoring`."""
        reports = Reports(
            self.flight_recorder,
            self.routes,
            partial(deaths.latest, self.directory.path) if self.directory else list,
            self.errors.read,
            self.slow.slowest.read,
            self.source,
            self.health.vitals,
            stacks=partial(read_stacks, self.directory.path if self.directory else None),
            prefix=self._prefix,
            group=self._group,
        )
        return Monitoring(reports, Overview(reports, self.health, self.settings), self.access)

    def begin(self, environ: WSGIEnvironment, application: str) -> None:
        """Work postponed until this process serves the first request of an application."""
        self.request_log.attach()  # the host may have configured its logging anew
        if not self.directory:
            try:
                self._peers.join(environ, application)
            except OSError as error:
                self.worker.failures.count("middleware", error)
        elif self._has_old_counts and not (self.directory.is_held() or _is_reload(self.directory, environ)):
            logger.warning(UNPREPARED, self.directory.path)
        if self.settings.extended:
            try:
                self.flight_recorder.open(capacity())
            except OSError as error:
                self.worker.failures.count("recent", error)
        self.worker.start()
        self.slow.start()

    def instruments(self, shape: Shape, *, first: bool, version: str) -> Instruments | None:
        """The instruments of this shape; applications that share the registry share them.

        None, with a warning, if another exporter has registered the families. `first` says whether the
        application has no other instruments; `version` is exposed beside new ones. Raises ValueError if the
        registry has the families with other labels.
        """
        by_prefix: dict[str, Instruments] = self.worker.instruments
        instruments = by_prefix.get(shape.prefix)
        if instruments is None:
            if not _announce(self.worker, shape.prefix, version):
                return None
            instruments = by_prefix[shape.prefix] = _declare(
                self.worker, self.settings, shape, first=first, errors=self.errors
            )
        else:
            instruments.forget()
        labels = instruments.metrics.shape.group, instruments.metrics.shape.extra
        if labels != (shape.group, shape.extra):
            raise ValueError(
                f"the registry has {shape.prefix}http_request_* with the labels {labels}, not "
                f"{(shape.group, shape.extra)}: give both applications the same group_by and default_labels, "
                "or one of them another defaults_prefix"
            )
        return instruments

    def sinks(self) -> list[Sink]:
        """The sinks that the settings turn on."""
        sinks: list[Sink] = []
        if self.request_log.on:
            sinks.append(("request_log", self.request_log.write))
        return sinks

    def fingerprints(self) -> Fingerprints | None:
        """The fingerprints of exceptions; None if error groups are not counted."""
        return Fingerprints(self.places, self.errors) if self.settings.extended else None

    def window(self) -> tuple[int, int]:
        """Requests and errors of the last 60 s, over all workers."""
        try:
            return self.worker.slots.totals(time.monotonic())
        except Exception as error:  # a failure of the exporter must not make the service unhealthy
            self.worker.failures.count("health", error)
            return 0, 0

    def uptime(self) -> float:
        """Seconds since the service started."""
        return time.monotonic() - self.flight_recorder.birth()

    def _exemplars(self) -> Iterable[Observed]:
        try:
            requests = self.flight_recorder.latest()
        except Exception as error:  # a scrape without exemplars is better than none
            self.worker.failures.count("recent", error)
            requests = []
        return of_requests(
            requests,
            durations=f"{self._prefix}http_request_duration_seconds",
            errors=f"{self._prefix}http_request_errors",
            group=self._group,
        )

    def _problem(self) -> str:
        if self.directory and workerfile.is_shut_out():
            return f"This worker cannot write into PROMETHEUS_MULTIPROC_DIR: {workerfile.error()}"
        try:
            return UNSHARED if self._peers.present() else ""
        except OSError as error:
            self.worker.failures.count("scrape", error)
            return ""

    def _count_group_error(self, error: BaseException) -> None:
        self.worker.failures.count("error_groups", error)

    def _note_log_error(self, error: BaseException) -> None:
        self.worker.note("request_log", error)

    def _count_fold_error(self, error: BaseException) -> None:
        self.worker.failures.count("fold", error)

    def _count_scrape_error(self, error: BaseException) -> None:
        self.worker.failures.count("scrape", error)


def _announce(worker: Worker, prefix: str, version: str) -> bool:
    """Expose `<prefix>exporter_info`; False if another exporter registered it first.

    prometheus_flask_exporter would silently reuse the families of that exporter.
    """
    try:
        Gauge(
            f"{prefix}exporter_info",
            "Information about the Prometheus Flask exporter",
            ["version"],
            registry=cast("CollectorRegistry", worker.declared),
            multiprocess_mode="max",
        ).labels(version).set(1)
    except ValueError:
        warn(
            f"the registry has {prefix}exporter_info from another exporter, so this application is "
            "not measured: give it a registry or an EXPORTER_PREFIX of its own"
        )
        return False
    return True


def _declare(
    worker: Worker, settings: Settings, shape: Shape, *, first: bool, errors: ErrorGroups
) -> Instruments:
    registry = cast("CollectorRegistry", worker.declared)
    if not settings.extended:
        return Instruments(worker, Metrics(registry, shape), max_series=settings.max_series)
    worker.losses.declare(registry)
    natives = Natives(shared_path(), worker.failures) if settings.native_histograms else None
    instruments = ExtendedInstruments(
        worker,
        ExtendedMetrics(registry, shape),
        max_series=settings.max_series,
        first=first,
        groups=errors,
        natives=natives,
    )
    worker.live.add(instruments.extremes, instruments.in_progress)
    return instruments


def _native_counts(worker: Worker, family: str) -> NativeCounts:
    counts: NativeCounts = {}
    for instruments in worker.instruments.values():
        if isinstance(instruments, ExtendedInstruments) and instruments.natives is not None:
            counts |= instruments.natives.counts(family)
    return counts


def _is_reload(directory: WorkerDirectory, environ: WSGIEnvironment) -> bool:
    """Whether Apache has replaced its processes; their parent runs no Python, so it holds no directory."""
    return "mod_wsgi.version" in environ and directory.is_younger_than(os.getppid())


def _has_counts(directory: WorkerDirectory, prefix: str) -> bool:
    """Whether the worker directory has the counts of a service that has ended."""
    try:
        if not directory.is_left_over():
            return False
        starts = DirectorySource(directory, ()).metrics([f"{prefix}worker_starts_total"])
        return any(sample.value for family in starts for sample in family.samples)
    except OSError:  # the first scrape reports it
        return False
