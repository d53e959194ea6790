"""The way of the request log to Loki: the shipped configurations as data."""

import re

import yaml

from tests.rig.places import ROOT

GRAFANA = ROOT / "grafana"
ALLOY = (GRAFANA / "alloy.config").read_text()
LOKI = yaml.safe_load((GRAFANA / "loki.yml").read_text())


def names(stage: str) -> set[str]:
    """The keys in the map of one stage of alloy.config."""
    block = re.search(rf"stage\.{stage} \{{\s+\w+ = \{{(.*?)\}}", ALLOY, re.DOTALL)
    assert block, stage
    return set(re.findall(r"(\w+)\s+=", block[1]))
