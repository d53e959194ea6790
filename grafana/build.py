"""`make dashboards` writes grafana/dashboards, where each directory is a folder of Grafana."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.boards import endpoints, errors, home, pipeline, requests, service, slo, workers

DASHBOARDS = Path(__file__).parent / "dashboards"


def documents() -> dict[str, str]:
    """The text of each file, by its path below grafana/dashboards."""
    boards = {
        "Flask/service.json": service.dashboard(),
        "Flask/endpoints.json": endpoints.dashboard(),
        "Flask/errors.json": errors.dashboard(),
        "Flask/requests.json": requests.dashboard(),
        "Flask/slo.json": slo.dashboard(),
        "Flask/workers.json": workers.dashboard(),
        "Monitoring/pipeline.json": pipeline.dashboard(),
        "home.json": home.dashboard(),
    }
    return {
        path: json.dumps(board, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
        for path, board in boards.items()
    }


def main() -> None:
    """Write every dashboard, and delete the files of dashboards that no longer exist."""
    texts = documents()
    for path in DASHBOARDS.rglob("*.json"):
        if path.relative_to(DASHBOARDS).as_posix() not in texts:
            path.unlink()
    for name, text in texts.items():
        path = DASHBOARDS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
