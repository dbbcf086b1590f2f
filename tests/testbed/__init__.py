"""A real Kubernetes for the tests: one that is there already, kind, k3d, or our own in namespaces of its own."""
