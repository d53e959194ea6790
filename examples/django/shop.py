"""A Django project in one file: `gunicorn shop:application`."""

import logging

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from exporter import request_id
from exporter.wsgi import WSGIExporter

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only an example",  # noqa: S106
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": "exporter.RequestContext"}},
        "formatters": {"line": {"format": "%(levelname)s %(request_id)s %(name)s: %(message)s"}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "filters": ["request"], "formatter": "line"}
        },
        "loggers": {"django": {"handlers": [], "propagate": True}},
        "root": {"handlers": ["console"], "level": "INFO"},
    },
)
logger = logging.getLogger("shop")


def order(request: HttpRequest, number: int) -> HttpResponse:
    """Show an order."""
    logger.info("order %s for %s", number, request.META["REMOTE_ADDR"])
    return HttpResponse(f"order {number}\n")


def boom(request: HttpRequest) -> HttpResponse:
    """Fail."""
    raise ValueError(f"no {request.path} today")


def sorry(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  Django's signature
    """Answer what nobody has handled, with the id under which the log has it."""
    return HttpResponse(f"Sorry, that went wrong. Tell us {request_id()}.\n", status=500)


urlpatterns = [path("orders/<int:number>", order, name="order"), path("boom", boom, name="boom")]
handler500 = sorry

application = WSGIExporter(get_wsgi_application())
