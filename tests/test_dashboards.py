"""The dashboards: committed as generated, complete, and answered by a live Prometheus."""

from grafana.build import DASHBOARDS, documents


def test_committed_dashboards_are_what_the_code_makes() -> None:
    """`make dashboards` changes nothing and leaves no file over."""
    committed = {
        path.relative_to(DASHBOARDS).as_posix(): path.read_text(encoding="utf-8")
        for path in DASHBOARDS.rglob("*.json")
    }

    assert documents() == committed
