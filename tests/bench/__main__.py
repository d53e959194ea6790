"""Every benchmark, one after the other, and all their rows in one table and one file.

    python -m tests.bench [benchmark …]

Results are in `.bench/results.json`. A target that was missed is marked and no failure: the machine may be
busy. A benchmark that broke is one.
"""

import json
import os
import platform
import sys
from dataclasses import asdict

from tests.bench import rows
from tests.rig.command import call

BENCHMARKS = (
    "overhead",
    "frameworks",
    "throughput",
    "requestlog",
    "logging_throughput",
    "flightrecorder",
    "errors",
    "sampler",
    "scrape",
    "memory",
    "dashboards",
    "fleet",
)


def main(chosen: list[str]) -> int:
    """Run those that were chosen, or all; 1 if one did not come to its end."""
    unknown = set(chosen) - set(BENCHMARKS)
    if unknown:
        print(f"no benchmark is called {', '.join(sorted(unknown))}: there is {', '.join(BENCHMARKS)}")
        return 2
    broken = []
    for benchmark in chosen or BENCHMARKS:
        print(f"\n{benchmark}\n", flush=True)
        rows.path(benchmark).unlink(missing_ok=True)
        call([sys.executable, "-m", "tests.rig.command", f"tests.bench.{benchmark}"])
        if not rows.path(benchmark).exists():
            broken.append(benchmark)
    found = {benchmark: rows.load(benchmark) for benchmark in BENCHMARKS if rows.path(benchmark).exists()}
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[1],
    }
    results = {"machine": machine, **{name: [asdict(row) for row in some] for name, some in found.items()}}
    rows.RESULTS.mkdir(exist_ok=True)
    (rows.RESULTS / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nAll of them (Python {machine['python']}, {machine['cores']} cores, load {machine['load']:.1f})")
    for benchmark, some in found.items():
        print(f"\n{benchmark}")
        for row in some:
            print(f"  {row}")
    missed = [row for some in found.values() for row in some if not row.reached]
    print(f"\n{len(missed)} missed" + "".join(f"\n  {row}" for row in missed))
    for benchmark in broken:
        print(f"BROKEN: tests.bench.{benchmark} wrote no rows", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
