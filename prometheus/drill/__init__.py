"""`make drill`: every alert fired for real in a second stack, and followed to a receiver and back."""
