"""A real Kubernetes for the tests: a cluster that is already there, kind, k3d, or one of our own in namespaces of its own."""
