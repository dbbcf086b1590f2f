"""Directories over stores in memory, on a virtual clock, with faults at every call: scenarios and a model test."""
