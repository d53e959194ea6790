"""Facts: the application's version, the exporter's mode, and the number of its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from exporter.worker.facts import Facts


@pytest.mark.parametrize(
    ("worker_files", "mode", "counts"),
    [
        (None, "single", (0, 0, 0)),
        (lambda: {"live": 4, "archive": 1}, "multiprocess", (4, 1, 0)),
        (lambda: {"corrupt": 2}, "multiprocess", (0, 0, 2)),
    ],
)
def test_each_state_of_files_has_a_sample(
    worker_files: Callable[[], Mapping[str, int]] | None, mode: str, counts: tuple[int, ...]
) -> None:
    families = Facts("1.4.2", worker_files, "shop_").collect()

    assert {
        family.name: [(*sample.labels.values(), sample.value) for sample in family.samples]
        for family in families
    } == {
        "shop_app_info": [("1.4.2", 1)],
        "shop_exporter_mode": [(mode, 1)],
        "shop_exporter_worker_files": list(zip(("live", "archive", "corrupt"), counts, strict=True)),
    }
