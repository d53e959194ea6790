"""Services that the drill plays: exporters with figures that no real service reaches within a minute."""

from dataclasses import dataclass

from prometheus.drill.sites import Site

BOUNDS = ("0.05", "0.25", "0.5", "5.0", "+Inf")


@dataclass(slots=True)
class Figures:
    """The increments of each scrape: `requests`, and the shares that fail, are slow, or are very slow.

    `unusual` is the share that takes up to half a second, `healthy` the value of the health check.
    """

    requests: int = 1000
    fail: float = 0.0
    unusual: float = 0.0
    slow: float = 0.0
    very_slow: float = 0.0
    healthy: int = 1
    version: str = "1"
    dies: bool = False
    flaps: bool = False
    refuses: bool = False

    def spend(self, pace: float) -> None:
        """Spend the budget of every objective at so many times the sustainable pace."""
        self.fail, self.slow, self.very_slow = 0.001 * pace, min(0.95, 0.05 * pace), 0.001 * pace


class Player(Site):
    """The exporter of a played service."""

    def __init__(self) -> None:
        self.figures = Figures()
        self._scrapes = 0
        self._cpu = 0.0
        self._good = self._bad = 0.0
        self._below = dict.fromkeys(BOUNDS, 0.0)
        super().__init__()

    def metrics(self) -> str:
        """Advance the counters by one scrape and return their text."""
        figures = self.figures
        self._scrapes += 1
        self.status = 500 if figures.refuses or (figures.flaps and self._scrapes % 2) else 200
        self._cpu = 0.0 if figures.dies and self._scrapes % 4 == 0 else self._cpu + 1
        self._good += figures.requests * (1 - figures.fail)
        self._bad += figures.requests * figures.fail
        above = {
            "0.05": figures.unusual + figures.slow,
            "0.25": figures.unusual + figures.slow,
            "0.5": figures.slow,
            "5.0": figures.very_slow,
            "+Inf": 0.0,
        }
        for bound in BOUNDS:
            self._below[bound] += figures.requests * (1 - above[bound])
        family = "flask_http_request_duration_seconds"
        labels = 'method="GET",url_rule="/"'
        lines = [
            f'{family}_count{{{labels},status="200"}} {self._good}',
            f'{family}_count{{{labels},status="500"}} {self._bad}',
            *(
                f'{family}_bucket{{{labels},status="200",le="{bound}"}} {below}'
                for bound, below in self._below.items()
            ),
            f'flask_health_check_up{{check="disk"}} {figures.healthy}',
            f'flask_app_info{{version="{figures.version}"}} 1',
            f"flask_worker_cpu_seconds_total {self._cpu}",
        ]
        return "\n".join([*lines, ""])
