"""Flask requests, measured for Prometheus."""
