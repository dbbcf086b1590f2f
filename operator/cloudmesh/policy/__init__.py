"""The scheduler: pure functions that filter, score and rank offers, and say why; all wings use it."""
