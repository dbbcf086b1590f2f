"""Machines: VirtualCluster, VirtualMachine, ClusterJob, the accounts they run on, prices and budgets.

A reconciler observes and carries out; what it decides is in pure modules, which say so in their first line.

| modules | what for |
|---|---|
| `cluster_controller`, `cluster_*` | VirtualCluster: a pass, and its parts: `memory`, `offers`, `making`, `telling` |
| `reading`, `asked`, `members` | what a cluster asks for, and its machines, as the plan reads them |
| `lifecycle`, `plan`, `pools`, `rollout`, `health` | pure: whether a cluster runs, and which machines it needs |
| `quote`, `approved`, `shrink` | pure: what it is made of, at what price, and what of it was approved |
| `machine_controller`, `machine_*`, `machines` | VirtualMachine: `plan` decides, `birth` and `end` act, `calls` ask |
| `account_controller`, `account_status`, `accounts` | CloudAccount, and its live handle that all others use |
| `surveyor`, `nodes`, `failures`, `cloud_metrics` | what is known of an account, looked at in the background |
| `orphans`, `ground`, `firewalls` | what an account holds besides: strays, and what clusters need there |
| `budget_*`, `budgets`, `guests`, `prices` | money: Budgets, limits, the books, sheets and the price list |
| `choices` | PriceSheet and PlacementPolicy |
| `jobs` | ClusterJob: sweep, plan, rounds over machines |
| `mount_logins` | what directories that machines mount let them in with; `bootstrap.mounts` mounts them |
| `bootstrap`, `ssh`, `reach`, `runner`, `access`, `probes` | logins, set-up and commands on machines |
| `ports`, `tokens`, `providers`, `rate` | the port to clouds, and those that are built in |
| `identity`, `endpoints`, `redact` | who an account is, where credentials may go, and where they mustn't show |
| `flights`, `owned`, `clocks`, `kinds`, `settings` | tools of all |
| `command`, `__main__` | offers, prices and quotes without a cluster: `python -m cloudmesh.compute` |
"""
