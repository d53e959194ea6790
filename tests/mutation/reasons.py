"""Why a change that no test notices changes nothing."""

import re

REASONS = (
    (r"MonitoringDeadMansSwitch: .*vector\( 1 ", "it fires whatever its value is"),
    (r"HostDiskFullSoon: .* 24h\) < 0 ", "no bytes left or one"),
    (r"FlaskRequestStuck: for: half of 30s", "rules are evaluated every 15 to 60 seconds"),
    (r"Flask\w+: .*on \(job, .*→ (on|by) \(service,", "targets of services are of one job by default"),
    (r"Flask\w+Burst: .*total_15m > 0 → 1", "where there are bad requests enough there are more than one"),
    (r"slo:.*:objective: .*le=", "nothing times any bucket is nothing"),
    (r"(job|url_rule):.*:error_ratio_5m: .*or 0 ", "a service without requests has no rate to add"),
    (r"error_group:.*topk without \(version\) \( 1 → 1.25", "topk takes a whole number"),
    (r"Flask(TargetFlapping|WorkerRestartLoop): .*>= 3 → 2.4", "a number of resets is whole"),
)


def reason(change: str) -> str:
    """Return why the change of a rule, written "name: what", cannot be noticed, or that nobody knows."""
    return next((why for pattern, why in REASONS if re.match(pattern, change)), "no test notices it yet")
