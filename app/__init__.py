"""The service that is observed."""
