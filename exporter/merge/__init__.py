"""The values of many workers become one value a series."""
