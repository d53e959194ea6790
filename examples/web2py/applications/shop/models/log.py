"""web2py runs this file before each controller, so that `logger` is at hand in every handler."""

import logging

from exporter import RequestContext, request_id  # noqa: F401

logger = logging.getLogger("shop")
if not logger.handlers:
    handler = logging.StreamHandler()
    handler.addFilter(RequestContext())
    handler.setFormatter(logging.Formatter("%(levelname)s %(request_id)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
