"""Flask: the rule that a request matched, its group, its default labels, and what answers it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, got_request_exception, has_request_context, make_response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map

from exporter.labels import clean, is_redirect
from exporter.observation import EXCHANGE, Context, Observation, Route
from exporter.routes.table import Finder
from exporter.routes.template import NOWHERE, report

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

OWN = "exporter_own"
"""The attribute that marks a rule as the exporter's own; its requests are no traffic."""
_RESPONSE = "exporter.response"


@dataclass(slots=True)
class FlaskGrouping:
    """The functions that give the label values of a Flask application's requests."""

    request_of: Callable[[Observation, WSGIEnvironment], Any]
    """Gives the request as Flask has routed it, or else a request with the rule that matches."""
    group_of: Callable[[Any], str] | None
    """Gives the group of a Flask request; None if that is the rule."""
    extra_of: Callable[[WSGIEnvironment], tuple[str, ...]] | None
    """Gives the values of the default labels; None if there are none."""
    by_rule: bool
    """Whether all labels follow from method, rule and status."""

    @classmethod
    def of(cls, app: Flask, group_by: str | Callable[..., Any], labels: Any) -> FlaskGrouping:
        """The grouping of an application; `group_by` and `labels` are those of `PrometheusMetrics`."""
        return cls(
            request_of(app),
            None if group_by == "url_rule" else group_of(group_by),
            default_values_of(labels, app) if labels.has_keys() else None,
            by_rule=group_by == "url_rule" and not labels.has_keys(),
        )

    @staticmethod
    def route(environ: WSGIEnvironment) -> Route | None:
        """The rule that Flask has found, unless the view asks not to be measured."""
        request: Any = environ.get("werkzeug.request")
        try:
            rule: Route | None = request.url_rule
            marks = request.__dict__
        except AttributeError:  # there is none, or it is Werkzeug's and not Flask's
            return None
        return None if "prom_do_not_track" in marks or "prom_exclude_all" in marks else rule

    def resolve(self, observation: Observation, environ: WSGIEnvironment) -> None:
        """Fill in what the application tells of the request, whose context may be gone."""
        request = self.request_of(observation, environ)
        observation.matched = rule = request.url_rule
        marks = request.__dict__
        if "prom_do_not_track" in marks or "prom_exclude_all" in marks or hasattr(rule, OWN):
            observation.untracked = True
            return
        if self.group_of is not None:
            observation.group = self.group_of(request)
            observation.own_group = rule is not None and observation.group in (rule.rule, rule.endpoint)
        if self.extra_of is not None:
            observation.extra = self.extra_of(environ)


def group_of(group_by: str | Callable[[Any], Any]) -> Callable[[Any], str]:
    """The function from a Flask request to its group label, as in `PrometheusMetrics(group_by=…)`."""
    if callable(group_by):
        return lambda request: clean(str(group_by(request)))
    return lambda request: clean(str(getattr(request, group_by)))


def request_of(app: Flask) -> Callable[[Observation, WSGIEnvironment], Any]:
    """The function from an observation and its environ to a request with its rule, if any matches."""

    def request_with_rule(observation: Observation, environ: WSGIEnvironment) -> Any:
        latest = environ.get("werkzeug.request")  # maybe another's: each new request puts itself there
        if _is_routed(latest):
            return latest
        if has_request_context() and request.environ is environ and _is_routed(request):
            return request
        # By now an application mounted in this one may have moved its prefix into SCRIPT_NAME.
        paths = {"SCRIPT_NAME": observation.script_name, "PATH_INFO": observation.path_info}
        match = app.request_class({**environ, **paths}, populate_request=False)
        adapter = app.create_url_adapter(match)
        if adapter is not None:
            with suppress(HTTPException):
                match.url_rule, _ = adapter.match(return_rule=True)
        return match

    return request_with_rule


def _is_routed(request: Any) -> bool:
    """Whether Flask has looked for the rule of the request; a middleware makes requests, too."""
    return (
        getattr(request, "url_rule", None) is not None
        or getattr(request, "routing_exception", None) is not None
    )


def default_values_of(labels: Any, app: Flask) -> Callable[[WSGIEnvironment], tuple[str, ...]]:
    """The function from an environ to the values of the default labels, which may need the response."""
    if labels.has_only_static_values():
        constant = tuple(clean(str(value)) for value in labels.get_default_values())
        return lambda _: constant

    @app.after_request
    def remember(response: Response) -> Response:
        request.environ[_RESPONSE] = response
        return response

    def values(environ: WSGIEnvironment) -> tuple[str, ...]:
        response = environ.get(_RESPONSE) or make_response("Exception", 500)
        return tuple(clean(str(value)) for value in labels.values_for(response).values())

    return values


def watch() -> None:
    """Tell of the exceptions that an application without an exporter of its own reports."""
    got_request_exception.connect(_tell)


def route(environ: WSGIEnvironment) -> Route | None:
    """The rule that Flask has found, or `NOWHERE`; None for a request that it has not seen."""
    latest: Any = environ.get("werkzeug.request")
    if latest is None and has_request_context() and request.environ.get(EXCHANGE) is environ.get(EXCHANGE):
        latest = request  # whatever mounts the application has copied the environ
    if latest is None or not hasattr(latest, "url_rule"):
        return None
    rule: Route | None = latest.url_rule
    return NOWHERE if rule is None and latest.routing_exception is not None else rule


def finder(application: WSGIApplication) -> Finder | None:
    """The routing of a Flask application; None for one that is wrapped into something else."""
    return partial(rule_of, application.url_map) if isinstance(application, Flask) else None


def _tell(sender: Any, exception: BaseException, **_: Any) -> None:  # noqa: ARG001  the signal's signature
    if has_request_context() and not is_redirect(exception):
        report(request.environ, exception)


def view_of(app: Flask, observation: Observation) -> Any:
    """The function, or the method of a class, that answers a request; None for none."""
    view: Any = app.view_functions.get(observation.endpoint)
    return getattr(getattr(view, "view_class", None), observation.method.lower(), view)


def context() -> Context | None:
    """What Flask knows of the current request; None outside of one."""
    if not has_request_context():
        return None
    return Context(request.environ.get(EXCHANGE), request.environ, request.url_rule)


def rule_of(url_map: Map, method: str, path: str) -> str | None:
    """The rule of a path without its script name, on any host; None for none."""
    hosts = {rule.host if url_map.host_matching else rule.subdomain for rule in url_map.iter_rules()}
    for host in sorted((host or "" for host in hosts), key=len):
        rule = _rule_on(url_map, host, method, path)
        if rule is not None:
            return rule
    return None


def _rule_on(url_map: Map, host: str, method: str, path: str) -> str | None:
    server, subdomain = (host or "localhost", None) if url_map.host_matching else ("localhost", host)
    for websocket in (False, True):
        try:
            adapter = url_map.bind(server, subdomain=subdomain)
            rule, _ = adapter.match(path, method, return_rule=True, websocket=websocket)
        except HTTPException:
            continue
        except Exception:  # a converter of the application's own
            return None
        return str(rule.rule)
    return None
