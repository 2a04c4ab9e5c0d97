"""What a step's parts cost, by a clock that the step itself moves."""

from types import SimpleNamespace

import torch
from torch import Tensor

from mmkd_logit.lab.benchmark import speed as module
from mmkd_logit.lab.benchmark.speed import PARTS, breakdown


class Trainer:
    """Its methods take the times that their names say."""

    def __init__(self, clock):
        self.clock = clock
        self.weight = torch.ones(1, requires_grad=True)

    def take(self, seconds):
        self.clock.now += seconds

    def read(self):
        self.take(2.0)

    def ask(self):
        self.take(4.0)

    def answer(self):
        self.take(8.0)
        self.ask()  # a part inside another
        self.take(1.0)

    def step(self):
        self.take(16.0)
        self.read()
        self.answer()
        self.weight.sum().backward()
        self.take(32.0)


def test_every_second_is_of_one_part(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    trainer = Trainer(clock)
    inner = Tensor.backward

    def backward(*args, **kwargs):
        clock.now += 64.0
        inner(*args, **kwargs)

    monkeypatch.setattr(Tensor, "backward", backward)
    probes = [
        (trainer, "read", "data"),
        (trainer, "ask", "teacher"),
        (trainer, "answer", "student"),
    ]
    found = breakdown(trainer.step, probes, torch.device("cpu"), steps=3)
    own = dict(data=2.0, teacher=4.0, student=9.0, backward=64.0, rest=48.0)
    assert found == {**dict.fromkeys(PARTS, 0.0), **own}
    assert Tensor.backward is backward
    assert "ask" not in vars(trainer)
