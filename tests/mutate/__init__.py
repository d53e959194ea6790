"""`make mutate`: changes the exporter one thing at a time and asks whether its tests notice."""
