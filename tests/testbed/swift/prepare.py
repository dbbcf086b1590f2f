"""Makes the rings of a Swift of one machine, run by its own Python: `prepare.py FOLDER ACCOUNT CONTAINER OBJECT`, which
are the ports."""

import sys

from swift.common.ring.builder import RingBuilder  # type: ignore[import-not-found]

folder, *ports = sys.argv[1:]
for name, port in zip(("account", "container", "object"), ports, strict=True):
    builder = RingBuilder(4, 1, 0)
    builder.add_dev(
        {"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1}
    )
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{name}.ring.gz")
