"""What lies in the worker directory."""
