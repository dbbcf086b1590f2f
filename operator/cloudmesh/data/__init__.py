"""VirtualDirectory and DataStore: one directory over many file stores, placed and kept by policy.

The operator's side makes a gateway for each directory and asks it how it does; the gateway's side is all the rest.

| modules | what for |
|---|---|
| `controller`, `summary`, `directory_metrics`, `notable` | VirtualDirectory: a pass, status, metrics, Events |
| `store_controller`, `store_status` | DataStore: looks at a store, says who uses it |
| `asked`, `resources`, `using` | pure: what a gateway is told, what it is made of, which prefix is whose |
| `access`, `settings`, `kinds`, `words` | Secrets and hosts of stores, the operator's settings, tools |
| `config`, `model`, `errors`, `names` | what both sides speak of: configuration, entries and copies, paths and keys |
| `gateway` | one process: its doors, who is let in, and what goes on in the background |
| `tree`, `writer`, `upload`, `memory` | the directory: looking, reading, changing; a write, its streams, its memory |
| `content`, `aiming`, `room` | of a write: its beginning, kept if a store fails; its keys; its part of stores |
| `placement`, `plan`, `balance` | pure: which stores a file belongs in, what the mover does next, what evens stores |
| `moving` | pure: which tags or which path bring a file to another rule |
| `plugins` | placements of somebody else's |
| `prices`, `money`, `allowance`, `affording` | what stores cost, what files cost, and who may still spend it |
| `quote`, `approval` | pure: what another placement takes, and what of a change waits for somebody to approve it |
| `mover`, `recovery` | looks at what is due and carries the plan out; ends what a crash left open |
| `hands`, `copying`, `removing`, `verifying` | the mover's parts: what they share, how a copy is made, removed, read |
| `leisure`, `settling` | what isn't urgent, one after the other: objects get the names of their files |
| `ours` | whether an object is what we wrote |
| `strangers` | what others wrote over our objects |
| `links` | entries that are read where somebody else keeps them |
| `following`, `scan`, `borders` | what others do in stores: listings beside the record; directories in a prefix |
| `mesh`, `identity`, `waking` | the stores as they live: up, believed, the same; what is looked at then |
| `placing` | what of a configuration makes all files due |
| `catalog`, `filling` | the catalogue, its journal, and how a new one is made of the stores |
| `emptying` | the end of a directory whose files go with it |
| `stores` | the port to stores, and those that are built in |
| `client`, `fs` | in programs: `Vdir` and `vdir://` |
| `clusters` | whom gateways let in for the mounts of VirtualClusters |
| `remote` | for the other wings: files of a directory through its gateway, and where its stores are |
"""
