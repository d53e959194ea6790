"""Log records as JSON lines: what a destination is told about each."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from exporter.log.masking import Mask
from exporter.log.records import JsonHandler


class Kept:
    """A destination that keeps what it is told."""

    def __init__(self) -> None:
        self.severities: list[int] = []

    def write(self, line: bytes, severity: int) -> None:  # noqa: ARG002  the text has tests of its own
        self.severities.append(severity)

    def close(self) -> None:
        """Close nothing."""


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
        (logging.INFO - 1, 7),
    ],
)
def test_a_level_has_its_severity_in_syslog(level: int, severity: int) -> None:
    """RFC 5424, section 6.2.1."""
    kept = Kept()
    JsonHandler(kept, "json", 0, Mask(["key"]), "here").handle(logging.makeLogRecord({"levelno": level}))

    assert kept.severities == [severity]


def test_a_record_that_is_lost_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """As by every handler of `logging`, and to the exporter."""

    class Full(Kept):
        def write(self, line: bytes, severity: int) -> None:  # noqa: ARG002
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    losses: list[BaseException] = []
    handler = JsonHandler(Full(), "json", 0, Mask(["key"]), "here", losses.append)
    handler.handle(logging.makeLogRecord({"levelno": logging.ERROR}))

    assert [str(loss) for loss in losses] == ["[Errno 28] No space left on device"]
    assert "OSError: [Errno 28] No space left on device" in capsys.readouterr().err
