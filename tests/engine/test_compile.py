"""torch.compile with the configs as they are: ``compile=True``, with a teacher, with its cache."""

import pytest
import torch
from commands import Tiny, folder_of, train
from runs import assert_same

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
