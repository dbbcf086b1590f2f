"""The command line `cms NOUN VERB ...`: `main` dispatches, each noun is a module of its own.

- `vdir`: one VirtualDirectory; `storage`: files between folders of this machine and directories
- `sides` reads the two sides of a transfer, `places` are what they can be, `transfer` plans and does it
- `connection` finds the gateway and who asks, `output` writes tables, JSON and YAML
"""
