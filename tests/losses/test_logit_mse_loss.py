import numpy as np
import pytest
import torch
from losses import reference
from losses.reference import evaluate
from torch import nn

from mmkd_logit.losses import LogitMSELoss

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@both_dtypes
@pytest.mark.parametrize(("shape", "class_dim"), [((6, 11), -1), ((6, 11, 2, 3), 1)])
def test_reductions(shape, class_dim, dtype):
    u, v = (z.reshape(shape) for z in reference.make_logits(6, np.prod(shape) // 6, 3, dtype=dtype))
    d = u.astype(np.float64) - v
    # (value, gradient) of the definitions
    wanted = {
        "mean": ((d**2).mean(), 2 * d / d.size),
        "batchmean": ((d**2).sum() / 6, 2 * d / 6),
        "sum": ((d**2).sum(), 2 * d),
        "none": (d**2, 2 * d),
    }
    for reduction, want in wanted.items():
        value, gradient = evaluate(LogitMSELoss(reduction, class_dim), u, v)
        assert value.shape == want[0].shape
        np.testing.assert_allclose(value, want[0], 1e-6)
        np.testing.assert_allclose(gradient, want[1], 1e-6)


def test_defaults_are_the_recipe():
    u, v = (torch.tensor(z) for z in reference.make_logits(8, 100))
    assert LogitMSELoss()(u, v) == nn.MSELoss()(u, v)


@both_dtypes
def test_zero_exactly_where_equal(dtype):
    _, v = reference.make_logits(3, 5, dtype=dtype)
    value, gradient = evaluate(LogitMSELoss(), v, v)
    assert value == 0
    assert not gradient.any()
    value, _ = evaluate(LogitMSELoss(), np.nextafter(v, dtype(np.inf)), v)
    assert value > 0


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # Python 3.13.0
@pytest.mark.parametrize("reduction", ["mean", "batchmean", "none"])
def test_compiles_as_one_graph(reduction):
    torch.compiler.reset()
    u, v = (torch.tensor(z) for z in reference.make_logits(4, 9))
    loss = LogitMSELoss(reduction)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(u, v), loss(u, v))
