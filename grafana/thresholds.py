"""What colours and empty panels mean, the same on every dashboard."""

from grafana.fields import Steps

STATUS_COLORS = {"2xx": "green", "4xx": "orange", "5xx": "red"}
# Where FlaskErrorRatioHigh and FlaskErrorRatioCritical fire, and /health warns.
ERROR_STEPS: Steps = ((None, "green"), (0.05, "orange"), (0.1, "red"))
# Where FlaskLatencyHigh fires.
LATENCY_STEPS: Steps = ((None, "green"), (0.5, "orange"), (1.0, "red"))
NO_TRAFFIC = "No traffic"
