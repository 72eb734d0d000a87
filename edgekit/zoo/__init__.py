"""Compact architectures, built from the formulas of their papers.

    network = build("ghostnet_100", classes=10)                     # random weights
    load_state(network, state, source="timm", skip_head=True)       # edgekit.zoo.state
    exits = MultiExit(network, find("ghostnet_100").exits, ...)     # edgekit.train.multi_exit

``ZOO`` lists the variants. Building needs edgekit-sdk[train]; listing needs nothing.
"""

from edgekit.zoo.registry import ZOO, ZooEntry, build, find

__all__ = ["ZOO", "ZooEntry", "build", "find"]
