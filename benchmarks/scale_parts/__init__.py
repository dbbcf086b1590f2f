"""Parts of the benchmark `cluster-scale`: the operator's process, and a minimal client that writes the same objects."""
