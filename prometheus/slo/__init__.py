"""`make rules`: `slo.yml` becomes recording rules, alerts and their tests."""
