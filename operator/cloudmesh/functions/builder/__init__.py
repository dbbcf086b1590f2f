"""The builder: an HTTPS service that turns a function's source into a signed image in a registry.

It holds no Kubernetes token, keeps nothing that matters, and never runs what it packs.
"""
