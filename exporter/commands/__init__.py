"""What an operator asks from a shell."""
