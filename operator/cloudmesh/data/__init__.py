"""VirtualDirectory and DataStore: one directory over many file stores, placed and kept by policy."""
