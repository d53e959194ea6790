"""`make run`: the whole stack as local processes."""
