"""`--app bench.rssm`: apps/r2i's agent with Dreamer's RSSM of size 12m in place of its state-space model, to compare with."""
