"""edgekit.train.distill: student and teacher see the same mixture, the loss is zero for a copy, runs repeat."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import BadRecipe
from edgekit.train.distill import DistillRecipe, MixRecipe, born_again, distill, distilled, mixed, supervised
from edgekit.train.loop import TrainRecipe, fit

SHORT = TrainRecipe(epochs=4, learning_rate=0.05, warmup_epochs=0.5, average=0.9)


def net(seed: int, width: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(32, width), nn.ReLU(), nn.Linear(width, 4))


def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(epoch)
    images = torch.randn(6, 16, 2, 4, 4, generator=generator)
    return [(each, each[:, 0, 0].argmax(1)) for each in images]


class Spy(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        logits: Tensor = self.inner(x)
        return logits


def test_mixup_is_the_weighted_sum_and_says_its_parts() -> None:
    images = torch.randn(8, 1, 6, 6)
    torch.manual_seed(3)
    got = mixed(images, MixRecipe())
    assert 0 < got.share < 1
    torch.testing.assert_close(got.images, got.share * images + (1 - got.share) * images[got.order])
    assert mixed(images, None).images is images
    assert mixed(images, MixRecipe(probability=0.0)).share == 1


def test_cutmix_takes_as_much_of_the_other_picture_as_it_says() -> None:
    images = torch.arange(8.0)[:, None, None, None].expand(8, 1, 10, 10).contiguous()
    for seed in range(20):
        torch.manual_seed(seed)
        got = mixed(images, MixRecipe(cut=1.0))
        row = next((index for index in range(8) if got.order[index] != index), None)
        assert row is not None
        assert float((got.images[row] == images[row]).float().mean()) == pytest.approx(got.share)


def test_teacher_and_student_see_the_same_and_the_teacher_is_left_alone() -> None:
    teacher, student = Spy(net(0)), Spy(net(1))
    before = copy.deepcopy(teacher.state_dict())
    distill(student, teacher, batches, schedule=SHORT)
    assert len(teacher.seen) == len(student.seen) == 24
    assert all(one is other for one, other in zip(teacher.seen, student.seen, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_loss_is_the_divergence_in_nats_and_zero_for_a_copy() -> None:
    images, labels = batches(0)[0]
    teacher, student = net(0).eval(), net(1)
    recipe = DistillRecipe(temperature=2.0, mix=None)
    none = distilled(teacher, recipe)(copy.deepcopy(teacher), images, labels)
    assert float(none.detach()) == pytest.approx(0, abs=1e-6)
    p, q = functional.softmax(teacher(images) / 2, 1), functional.softmax(student(images) / 2, 1)
    wanted = float((p * (p / q).log()).sum(1).mean().detach()) * 4
    assert float(distilled(teacher, recipe)(student, images, labels).detach()) == pytest.approx(wanted, rel=1e-5)
    hard = functional.cross_entropy(student(images), labels, label_smoothing=0.1)
    half = DistillRecipe(temperature=2.0, mix=None, hard=0.5, smoothing=0.1)
    both = distilled(teacher, half)(student, images, labels)
    assert float(both.detach()) == pytest.approx(wanted / 2 + float(hard.detach()) / 2, rel=1e-5)
    torch.testing.assert_close(supervised(half)(student, images, labels), hard)


def test_a_student_comes_nearer_to_its_teacher_than_one_taught_by_labels() -> None:
    teacher = net(5, 16).eval()  # untrained: its answers have nothing to do with the labels
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(3)
    schedule = TrainRecipe(epochs=40, learning_rate=0.1, warmup_epochs=1.0, weight_decay=0.0)
    students = {"teacher": net(1), "labels": net(1)}
    found = distill(students["teacher"], teacher, batches, schedule=schedule)
    fit(students["labels"], batches, supervised(), schedule)
    assert found[-1].loss < 0.5 * found[0].loss
    images = torch.cat([each for each, _ in batches(99)])
    with torch.no_grad():
        agree = {name: float((each(images).argmax(1) == teacher(images).argmax(1)).float().mean())
                 for name, each in students.items()}
    assert agree["teacher"] > max(0.6, agree["labels"] + 0.2)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    teacher, whole, killed = net(0), net(1), net(1)
    distill(whole, teacher, batches, schedule=SHORT)

    def dies(epoch: int) -> list[tuple[Tensor, Tensor]]:
        if epoch == 2:
            raise KeyboardInterrupt
        return batches(epoch)

    with pytest.raises(KeyboardInterrupt):
        distill(killed, teacher, dies, schedule=SHORT, checkpoint=tmp_path / "run.pt")
    resumed = net(7)
    distill(resumed, teacher, batches, schedule=SHORT, checkpoint=tmp_path / "run.pt")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_each_generation_learns_from_the_one_before() -> None:
    first = net(0)
    made: list[nn.Module] = []

    def fresh() -> nn.Module:
        made.append(net(10 + len(made)))
        return made[-1]

    last = born_again(first, fresh, batches, generations=2, schedule=SHORT)
    assert len(made) == 2
    assert last is made[1]


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"hard": 1.5}, {"smoothing": 1.0}])
def test_impossible_recipes_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(BadRecipe):
        DistillRecipe(**values)  # type: ignore[arg-type]
    with pytest.raises(BadRecipe):
        MixRecipe(alpha=0.0)
