"""Pages for links of messages that would lead nowhere, served by Prometheus beside the runbooks.

Debian's Alertmanager has no form that silences an alert, and Grafana may not be there.
"""

import json
import shutil
from pathlib import Path

from prometheus.run.plan import TOP, Plan

HERE = Path(__file__).parent

FORM = '{{{{ define "stack.form" }}}}{url}{{{{ end }}}}\n'


def add_silence_form(plan: Plan) -> None:
    """Add a form that asks Alertmanager's API, and have the messages lead to it."""
    page = (HERE / "silence.html").read_text(encoding="utf-8")
    page = page.replace("http://127.0.0.1:9093", plan.url("alertmanager"))
    (plan.configuration / "runbooks/silence.html").write_text(page, encoding="utf-8")
    template = plan.configuration / "alertmanager/templates/form.tmpl"
    template.write_text(FORM.format(url=f"{plan.url('prometheus')}/user/silence.html"), encoding="utf-8")


def add_dashboards(plan: Plan) -> None:
    """Add a page with the most important figures for each dashboard."""
    directory = plan.configuration / "runbooks/d"
    directory.mkdir()
    for file in (TOP / "grafana/dashboards").glob("*/*.json"):
        uid = json.loads(file.read_text(encoding="utf-8"))["uid"]
        shutil.copy(HERE / "dashboard.html", directory / uid)
