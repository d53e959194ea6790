"""reference/log.md: the fields of the request log."""

from __future__ import annotations

from docs.writers.markdown import code, page, section, table

# In the order of a line.
REQUEST = {
    "timestamp": "when the answer was complete, ISO 8601 in UTC",
    "level": "`INFO`; `WARNING` from 400 on; `ERROR` from 500 on, and where an exception ended the request",
    "logger": "`exporter.request`",
    "instance": "`EXPORTER_INSTANCE`, or the name of the host",
    "message": "method, rule and status in one text",
    "request_id": "also in the header `X-Request-ID` of the answer",
    "trace_id": "of OpenTelemetry, or of the header `traceparent`; empty without",
    "method": "as the client sent it",
    "path": "its first 512 characters",
    "query": "the query string, with masked values; only with `EXPORTER_LOG_QUERY=on`",
    "url_rule": "Flask's rule, or `_unmatched`",
    "endpoint": "Flask's endpoint; empty where no rule matched",
    "status": "of the answer",
    "duration_seconds": "until the body had been handed to the server",
    "request_bytes": "size of the request's body",
    "response_bytes": "size of the answer's body",
    "remote_addr": "the client's address; behind a proxy of `EXPORTER_TRUSTED_PROXIES`, the one that it names",
    "error_type": "class of the exception, or name of the HTTP error; empty without one",
    "error_group": "of the bug, twelve hex digits; empty without one",
    "where": "of a slow request (`EXPORTER_SLOW`): `module:function`, or the template, in which it waited longest",
    "line": "of that function",
    "library": "the function of a library that was called there",
    "call": "the call that was waited for, without its arguments",
    "shares": "the largest parts of the time, by place",
}
RECORD = {
    "timestamp": "when the record was made",
    "level": "of the record",
    "logger": "of the record",
    "instance": "as above",
    "message": "with masked secrets; 16,384 characters at most",
    "request_id": "of the request that was being answered; absent outside of one, as the next five",
    "trace_id": "as above",
    "method": "as above",
    "path": "as above",
    "url_rule": "as above",
    "endpoint": "as above",
    "error_type": "class of the exception, where the record has one",
    "error_group": "of that exception, where it is of the application's own code",
    "traceback": "the last 16,384 characters, with masked secrets",
    "stack": "with `stack_info=True`",
}

INTRODUCTION = """\
One JSON object a line: one line for each request, and one for each record that is logged while a request is answered, with the same
`request_id`. Off until `EXPORTER_REQUEST_LOG` says where to. What is masked, and what is never written:
[SECURITY.md](../../SECURITY.md#what-is-in-the-log)."""


def text() -> str:
    """The page."""
    return page(
        "Log fields",
        "docs/writers/log.py",
        INTRODUCTION,
        section("Of a request", _table(REQUEST)),
        section(
            "Of a log record",
            "Any logger of the process. What the application gives as `extra` is a field too, as `extra_…` where the\n"
            "name is one of these.",
            _table(RECORD),
        ),
    )


def _table(fields: dict[str, str]) -> str:
    return table(["field", "meaning"], [[code(name), meaning] for name, meaning in fields.items()])
