"""What holds for all tests of the exporter."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import pytest


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    """A sampler that comes late here says that the machine is busy, not that a request was blocked.

    Services in processes of their own keep the limit.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exporter.worker.sampler._LATE", inf)
        yield
