"""ClusterJob: a command swept over the machines of a cluster."""
