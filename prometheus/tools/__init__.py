"""`.tools/`: the programs that the stack runs."""
