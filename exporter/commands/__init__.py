"""Commands for an operator at a shell."""
