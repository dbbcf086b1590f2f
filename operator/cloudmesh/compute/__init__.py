"""Machines: VirtualCluster, VirtualMachine, ClusterJob, the accounts they run on, prices and budgets."""
