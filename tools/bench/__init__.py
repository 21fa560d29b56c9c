"""What things cost: `python tools/bench COMMAND`. Each file measures one thing; clock, turns, rows and picture are shared."""
