"""The catalogue: which files there are, where their copies lie, and what is under way. A cache of the stores."""
