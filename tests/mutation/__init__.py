"""`make mutation`: changes the rules one thing at a time and asks whether their tests notice."""
