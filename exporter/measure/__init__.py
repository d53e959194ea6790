"""A request comes in, one observation goes out."""
