"""`make backtest`: the real rules on synthetic history, and what they would have told, and when."""
