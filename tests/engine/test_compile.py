"""torch.compile with the configs as they are: ``compile=True``, with a teacher, with its cache."""

import pytest
import torch
from commands import Tiny, folder_of, train
from cut_off import train as train_run
from mmengine.hooks import Hook
from runs import assert_same, digits_distiller, run_config
from runs import weights as weights_of

EAGER = "{'backend':'eager'}"  # of Dynamo alone, as Inductor compiles for minutes


def weights(config):
    return torch.load(folder_of(config) / "final.pth", weights_only=False)["state_dict"]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of Dynamo
@pytest.mark.parametrize("cache", [{}, dict(model__teacher__cache="{'storage':'memory'}")])
def test_a_compiled_run_gives_the_same_weights(workplace, cache):
    tiny = Tiny()
    train(tiny.teacher)
    train(tiny.kd, **cache)
    found = weights(tiny.kd)
    train(tiny.kd, "--work-dir", "compiled", compile=EAGER, **cache)
    compiled = torch.load("compiled/final.pth", weights_only=False)["state_dict"]
    assert_same(found, compiled)


@pytest.mark.parametrize("compiled", [dict(mode="reduce-overhead"), dict(mode="default")])
def test_momentum_is_made_before_a_cuda_graph(tmp_path, monkeypatch, compiled):
    """A graph would overwrite what the first step made in it; the bits stay."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)

    class Looks(Hook):
        def before_train(self, runner):
            self.made = len(runner.optim_wrapper.optimizer.state)

    finals = []
    for number, settings in enumerate((compiled, None)):
        looks = Looks()
        cfg = run_config(digits_distiller(), tmp_path / str(number))
        cfg.compile = settings
        finals.append(weights_of(train_run(cfg, None, looks)))
        assert bool(looks.made) == (settings == dict(mode="reduce-overhead"))
    assert_same(*finals)


def test_a_teacher_does_not_start_cuda_graphs_of_its_own(tmp_path):
    cfg = run_config(digits_distiller(), tmp_path)
    cfg.compile = dict(mode="reduce-overhead")
    cfg.model.teacher.compile = True
    with pytest.raises(ValueError, match=r"model\.teacher\.compile would start new ones"):
        train_run(cfg)
