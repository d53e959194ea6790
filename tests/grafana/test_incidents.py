"""What `make dashboards-drill` looks for is on the pages."""

from __future__ import annotations

import pytest

from tests.incidents.__main__ import place
from tests.incidents.halfhour import SECONDS
from tests.incidents.sights import Sight, incidents
from tests.rig.pages import BOARDS, panel
from tests.rig.queries import queries_of

ADDRESSES = {name: f"{name}:80" for name in ("orders-1", "orders-2", "shop-1", "shop-2")}
PLAN = incidents(ADDRESSES)


@pytest.mark.parametrize(
    "sight",
    [sight for incident in PLAN for sight in incident.sights],
    ids=lambda sight: f"{sight.page} {sight.panel}",
)
def test_a_sight_names_a_panel_and_its_columns(sight: Sight) -> None:
    titles = {query.title for query in queries_of(BOARDS[sight.page])}

    assert sight.panel in titles
    assert place(sight)
    if sight.column:
        columns = panel(sight.page, sight.panel)["transformations"][-1]["options"]["renameByName"].values()
        assert {sight.column, *sight.where} <= set(columns)


def test_each_incident_ends_before_the_half_hour() -> None:
    assert [incident.begin for incident in PLAN] == sorted(incident.begin for incident in PLAN)
    assert all(incident.begin + incident.limit <= SECONDS for incident in PLAN)
