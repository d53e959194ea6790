"""The page at `/monitoring`, for people."""
