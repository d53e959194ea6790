"""From /metrics to decisions: rules and configurations, and the commands that run and check them."""
