"""The buckets of native histograms: eight to a power of two, from 8 µs to 256 s.

Source: Prometheus' specification of native histograms, schema 3: bucket i holds (2^((i-1)/8), 2^(i/8)]. What
is not above 2^-17 s is in the zero bucket, what is above 256 s in the last one.
"""

from __future__ import annotations

from math import ldexp

SCHEMA = 3
LOWEST, HIGHEST = -17, 8
"""The exponents of the lowest and the highest bound."""

# 2^(k/8) / 2 for k from 0 to 7, rounded as Prometheus does.
_FRACTIONS = (
    0.5,
    0.5452538663326288,
    0.5946035575013605,
    0.6484197773255048,
    0.7071067811865475,
    0.7711054127039704,
    0.8408964152537144,
    0.9170040432046711,
)

ZERO_THRESHOLD = ldexp(1.0, LOWEST)
BOUNDS = (
    *(ldexp(fraction, exponent + 1) for exponent in range(LOWEST, HIGHEST) for fraction in _FRACTIONS),
    ldexp(1.0, HIGHEST),
)
"""Upper bounds in seconds, for `bisect_left`: its result plus `ZERO` is the index of the bucket."""

ZERO = LOWEST << SCHEMA
"""Stands for the zero bucket; the index below the first one that is in use."""
LAST = ZERO + len(BOUNDS)
