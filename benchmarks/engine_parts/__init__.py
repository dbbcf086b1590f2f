"""What the engine benchmark runs: the same small operator twice, on our engine and on plain kopf."""
