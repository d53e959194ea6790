"""reference/words.md: the words that stand in labels, states and causes."""

from __future__ import annotations

from docs.writers.markdown import code, page, section, table
from exporter.labels import METHODS, OTHER, OTHER_METHOD, UNMATCHED
from exporter.worker.failures import STAGES

# The first word of a heading is its anchor.
WORDS = {
    "url_rule": {
        UNMATCHED: "no rule matched: a 404, a 405, or a redirect to the path with a slash",
        OTHER: "the series cap (`EXPORTER_MAX_SERIES`) does not admit this group, and it is no rule of the application",
    },
    "method": {
        OTHER_METHOD: f"none of {', '.join(sorted(METHODS))}, or folded by the series cap",
    },
    "status": {
        "4xx": "folded by the series cap, as are 1xx, 2xx, 3xx and 5xx: any status of this class",
    },
    "error_type": {
        "NotFound": "and its like: the class of an exception, or the name of the HTTP error with this status",
    },
    "error_group": {
        OTHER: "a service has 63 groups at a time; what finds no room is counted here",
    },
    "where": {
        "module:function": "the function of your own code; or the path of a template",
        OTHER: "a service has 100 pairs of rule and place at a time; what finds no room is counted here",
        "-": "one call kept the interpreter for itself, and nobody could look",
    },
    "cause": {
        "SIGKILL": "the kernel for want of memory, or somebody with `kill -9`",
        "SIGSEGV": "a crash in C; `/monitoring/deaths` has the Python stack. So too `SIGABRT`, `SIGBUS` and other signals",
        "timeout": "gunicorn: the worker did not report within `timeout`",
        "graceful timeout": "gunicorn: it was told to end, and requests took longer than `graceful_timeout`",
        "exit 3": "the exit code, whichever it is",
        "unknown": "no master told: uWSGI, or a server without hooks",
    },
    "state": {
        "live": "files of workers that live",
        "archive": "the file with the counts of all dead workers, and dead files that are not in it yet",
        "corrupt": "files that cannot be read; their samples are lost, and nobody else's",
    },
    "mode": {
        "single": "one process counts for itself",
        "multiprocess": "workers share a directory, and any of them answers for all",
    },
    "stage": {
        "middleware": "the observation of a request",
        "labels": "the label values of a request; a function of `group_by` or `default_labels` may have raised",
        "instruments": "the counters and histograms of a request",
        "slots": "the seconds of which `/health` and the minimum and maximum are made",
        "recent": "the latest requests of `/monitoring`",
        "deaths": "the count of workers that died",
        "slow": "the place where a slow request waited",
        "worker_file": "a write into the worker directory: a full disk, or too little memory",
        "error_groups": "the group of an exception",
        "request_log": "a line of the request log: it is lost",
        "scrape": "a family of an answer to Prometheus: it is left out",
        "fold": "the counts of a dead worker: the next scrape tries again",
        "health": "a page of health, or a check",
    },
    "status of health": {
        "healthy": "every check passes, and few requests fail",
        "warning": "more errors in the last minute than `EXPORTER_HEALTH_WARNING`",
        "degraded": "more errors in the last minute than `EXPORTER_HEALTH_DEGRADED`",
        "unhealthy": "a check fails; the answer is a 503",
        "alive": "`/health/live`: the process answers",
        "ready": "`/health/ready`: every check passes",
        "not ready": "`/health/ready`: a check fails; 503",
        "draining": "`/health/ready`: the server is stopping; 503",
    },
    "state of a request": {
        "running": "the application works on it, or it waits",
        "sending": "the answer has begun",
    },
    "severity": {
        "critical": "a person must act on it now",
        "warning": "to be looked at today",
        "info": "good to know; nobody is woken",
    },
}

INTRODUCTION = """\
What stands in labels, on pages and in messages beside the names of your own routes, classes and functions. Above the series cap
values become coarse."""


def text() -> str:
    """The page; ValueError where the stages of failures are others."""
    if tuple(WORDS["stage"]) != STAGES:
        raise ValueError(f"the stages of failures are {STAGES}")
    sections = (
        section(title, table(["value", "meaning"], [[code(word), text] for word, text in words.items()]))
        for title, words in WORDS.items()
    )
    return page("Words", "docs/writers/words.py and exporter", INTRODUCTION, *sections)
