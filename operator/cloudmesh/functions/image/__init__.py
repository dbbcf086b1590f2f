"""OCI images without a daemon: deterministic layers, manifests, layouts, a registry client and signatures.

Nothing here runs code out of what it packs, and nothing is unpacked to disk by name. The same input gives the same
digest on any machine: entries are sorted, times and owners fixed, JSON canonical, one compressor with one setting.
"""
