"""The files of the worker directory."""
