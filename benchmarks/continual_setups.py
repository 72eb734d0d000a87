"""What benchmarks.continual trains: arms, and for Split-MNIST and Split-CIFAR-10 a network, a stream and a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import torch

from benchmarks.packs import photographs
from edgekit.train.continual.learner import Learner
from edgekit.train.continual.nets import Resizable, SmallCnn, SmallResNet
from edgekit.train.continual.recipe import ContinualRecipe, GradientRecipe, MaskRecipe, RemovalRecipe
from edgekit.train.continual.streams import Labelled, Stream, mnist_stream, split_stream

__all__ = ["ARMS", "SETUPS", "TIMED", "Arm", "Setup", "cifar_stream"]

_BATCH = 32
#: pictures of each class that settings are chosen on; none of them is trained on
_CIFAR_HELD_OUT = 100
_REMOVAL, _GRADIENTS = RemovalRecipe(share=0.3, every=1, rounds=3), GradientRecipe()


class Arm(NamedTuple):
    """``masks``, ``removal``, ``gradients``: the parts of SparCL; ``eighth``: an eighth of the steps."""

    masks: MaskRecipe | None = None
    removal: RemovalRecipe | None = None
    gradients: GradientRecipe | None = None
    eighth: bool = False

    @property
    def whole_channels(self) -> bool:
        """Whether it masks channels."""
        return self.masks is not None and self.masks.unit == "channels"


def _masks(sparsity: float, *, dynamic: bool = True, start: Literal["magnitude", "random"] = "magnitude") -> MaskRecipe:
    return MaskRecipe(sparsity=sparsity, dynamic=dynamic, start=start, every=2, p_intra=0.005, p_inter=0.005,
                      samples=32)


def _channels(sparsity: float, multiple: int = 1) -> Arm:
    return Arm(MaskRecipe(sparsity=sparsity, unit="channels", multiple=multiple, every=2, p_intra=0.06, p_inter=0.06,
                          samples=32), _REMOVAL)


def _blocks_of_8(sparsity: float, whole: tuple[str, ...], p_intra: float) -> Arm:
    """Channels of all groups but ``whole``, of which the part ``p_intra`` is exchanged every two epochs."""
    return Arm(MaskRecipe(sparsity=sparsity, unit="channels", multiple=8, whole=whole, every=2, p_intra=p_intra,
                          p_inter=0.0, samples=32), _REMOVAL)


#: in the order in which they are trained, for each seed
ARMS: dict[str, Arm] = {
    "dense": Arm(),
    "sparse .75": Arm(_masks(0.75), _REMOVAL, _GRADIENTS),
    "sparse .9": Arm(_masks(0.9), _REMOVAL, _GRADIENTS),
    "dense, 1/8 of the steps": Arm(eighth=True),
    "sparse .9, masks only": Arm(_masks(0.9)),
    "sparse .9, static mask": Arm(_masks(0.9, dynamic=False)),
    "sparse .9, static random mask": Arm(_masks(0.9, dynamic=False, start="random")),
    "sparse .95": Arm(_masks(0.95), _REMOVAL, _GRADIENTS),
    "channels .25": _channels(0.25),
    "channels .375, by 8": _channels(0.375, 8),
    "channels .5": _channels(0.5),
    "convolutions .5, by 8": _blocks_of_8(0.5, ("fc1",), 0.02),
    "inside blocks .5, by 8": _blocks_of_8(0.5, ("trunk0", "trunk1", "trunk2"), 0.0),
}

#: whose times are compared, the first with all others; what removing data alone saves is the second
TIMED: dict[str, Arm] = {"dense": ARMS["dense"], "dense, data removal": Arm(removal=_REMOVAL),
                         **{name: arm for name, arm in ARMS.items() if name == "sparse .9" or arm.whole_channels}}


class Setup(NamedTuple):
    """``stream``: of so many pictures of each class, with held-out ones in place of test ones where True.

    ``image``: (C, H, W). ``recipe``: what all arms share. ``rates``: to try; ``compared_rates``: of them, with
    more seeds. ``pictures``: of each class.
    """

    network: Callable[[], Resizable]
    image: tuple[int, int, int]
    stream: Callable[[int, bool], Stream]
    recipe: ContinualRecipe
    rates: tuple[float, ...]
    compared_rates: int
    seeds: int
    pictures: int

    def arms(self) -> dict[str, Arm]:
        """Those of ``ARMS`` whose dense groups the network has."""
        groups = self.network().widths.keys()
        return {name: arm for name, arm in ARMS.items() if arm.masks is None or set(arm.masks.whole) <= groups}

    def recipe_of(self, arm: Arm, rate: float, seed: int, samples: int) -> ContinualRecipe:
        """``samples``: of a task, for the number of steps."""
        steps = round(-(-samples // _BATCH) * self.recipe.epochs / 8) if arm.eighth else None
        return msgspec.structs.replace(self.recipe, steps=steps, learning_rate=rate, seed=seed, masks=arm.masks,
                                       removal=arm.removal, gradients=arm.gradients)

    def learner(self, arm: Arm, data: Stream, rate: float, seed: int) -> Learner:
        """Ready to run."""
        torch.manual_seed(seed)
        return Learner(self.network(), data, self.recipe_of(arm, rate, seed, len(data.tasks[0].train_labels)))


def cifar_stream(pictures: int, held_out: bool) -> Stream:
    """Split-CIFAR-10 of JPEG files: the first ``pictures`` of each class, and 5,000 test or 1,000 held-out ones."""
    images, labels = photographs("cifar10_jpeg.npz", "train_", 12 * (pictures + _CIFAR_HELD_OUT) + 500)
    places = [np.flatnonzero(labels == each) for each in range(10)]
    chosen = [np.concatenate([each[start:start + count] for each in places])
              for start, count in ((0, pictures), (pictures, _CIFAR_HELD_OUT))]
    train, other = (Labelled(np.stack([images[place] for place in part]), labels[part]) for part in chosen)
    if not held_out:
        images, labels = photographs("cifar10_jpeg.npz", "test_")
        other = Labelled(np.stack(images), labels)
    return split_stream(train, other, 5)


SETUPS: dict[str, Setup] = {
    "mnist": Setup(SmallCnn, (1, 28, 28),
                   lambda pictures, held_out: mnist_stream(train=pictures, validation=held_out),
                   ContinualRecipe(epochs=10, batch=_BATCH), (0.05, 0.1, 0.2, 0.4),
                   compared_rates=2, seeds=5, pictures=400),
    "cifar": Setup(lambda: SmallResNet(stages=(32, 64, 128), stride=2), (3, 32, 32), cifar_stream,
                   ContinualRecipe(epochs=6, batch=_BATCH, augment="shift_flip", bfloat16=True), (0.05, 0.15),
                   compared_rates=1, seeds=3, pictures=150),
}
