"""Trained networks made physically smaller: channels pruned, layers split, both by one rule. Needs edgekit-sdk[train].

found = compress(network, Data(images, labels), Target(macs=0.5))
save(found.network, found.splits, Path("small.pt"))
"""

from edgekit.compress.recipe import CompressRecipe
from edgekit.compress.run import Compressed, Data, Size, Target, compress
from edgekit.compress.saved import load_weights, rebuild, save

__all__ = ["CompressRecipe", "Compressed", "Data", "Size", "Target", "compress", "load_weights", "rebuild", "save"]
