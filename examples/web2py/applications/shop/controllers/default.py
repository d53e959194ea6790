"""The handlers; `logger`, `request` and `request_id` are web2py's and those of models/log.py."""

# ruff: noqa: F821


def order():  # type: ignore[no-untyped-def]
    """Show an order."""
    logger.info("order %s for %s", request.args(0), request.client)  # type: ignore[name-defined]
    return f"order {request.args(0)}\n"  # type: ignore[name-defined]


def boom():  # type: ignore[no-untyped-def]
    """Fail."""
    raise ValueError("no boom today")


def sorry():  # type: ignore[no-untyped-def]
    """Answer what nobody has handled, with the id under which the log has it."""
    return f"Sorry, that went wrong. Tell us {request_id()}.\n"  # type: ignore[name-defined]
