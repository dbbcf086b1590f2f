"""What benchmarks of directories share: a gateway over real stores, random operations on it, and a rival."""
