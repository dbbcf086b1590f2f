"""VirtualDirectory and DataStore: one directory over many file stores, placed and kept by policy.

The operator's side makes a gateway for each directory and asks it how it does; the gateway's side is all the rest.

| modules | what for |
|---|---|
| `controller`, `summary`, `directory_metrics` | VirtualDirectory: a pass, what the gateway tells, status and metrics |
| `store_controller`, `store_status` | DataStore: looks at a store, says who uses it |
| `asked`, `resources`, `using` | pure: what a gateway is told, what it is made of, which prefix is whose |
| `access`, `settings`, `kinds`, `words` | Secrets and hosts of stores, the operator's settings, tools |
| `config`, `model`, `errors`, `names` | what both sides speak of: configuration, entries and copies, paths and keys |
| `gateway` | one process: its doors, who is let in, and what goes on in the background |
| `tree`, `writer`, `upload`, `memory` | the directory: looking, reading, changing; a write, its streams, what they take |
| `placement`, `plan` | pure: which stores a file belongs in, and what the mover does next |
| `mover`, `recovery` | carries the plan out; ends what a crash left open |
| `following`, `scan`, `borders` | what others do in stores: listings beside the record; other directories within a prefix |
| `mesh`, `waking` | the stores as they live: up or not, believed or not; what is looked at when one comes or goes |
| `catalog`, `filling` | the catalogue, its journal, and how a new one is made of the stores |
| `emptying` | the end of a directory whose files go with it |
| `stores` | the port to stores, and those that are built in |
| `client`, `fs` | in programs: `Vdir` and `vdir://` |
"""
