"""The route of a request, as each framework tells it: one module a framework."""
