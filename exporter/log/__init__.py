"""One JSON line a request, one a log record."""
