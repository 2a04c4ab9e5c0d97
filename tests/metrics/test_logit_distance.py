import numpy as np
import pytest
import torch
from logit_samples import evaluate, logit_case, samples_of
from scipy.stats.mstats import mquantiles
from sklearn.metrics.pairwise import paired_euclidean_distances

from mmkd_logit.metrics import LogitDistance


@pytest.mark.parametrize(("seed", "n"), [(0, 200), (1, 101), (2, 2), (3, 1)])
def test_equals_scikit_learn_and_scipy(seed, n):
    case = logit_case(seed, n=n)
    distances = paired_euclidean_distances(
        case.logits.astype(np.float64), case.teacher_logits.astype(np.float64)
    )
    places = (0.05, 0.25, 0.5, 0.75, 0.95)
    expected = dict(
        zip(
            ["distance/mean", *(f"distance/q{q}" for q in ("05", "25", "50", "75", "95"))],
            [distances.mean(), *mquantiles(distances, places, alphap=1, betap=1)],
            strict=True,
        )
    )
    assert evaluate(LogitDistance(), samples_of(case)) == pytest.approx(expected, rel=1e-10)


def test_by_hand():
    """Distances 5, 2, 13, 0."""
    pairs = [
        ([3, 4, 0], [0, 0, 0]),
        ([1, 1, 1], [1, 3, 1]),
        ([5, 0, 0], [0, 0, 12]),
        ([7] * 3,) * 2,
    ]
    samples = [
        dict(logits=torch.tensor(u).float(), teacher_logits=torch.tensor(v).float())
        for u, v in pairs
    ]
    found = evaluate(LogitDistance((0, 0.5, 1)), samples)
    assert found == {
        "distance/mean": 5,
        "distance/q00": 0,
        "distance/q50": 3.5,
        "distance/q100": 13,
    }


def test_square_is_classes_times_the_loss():
    from mmkd_logit.losses import LogitMSELoss

    case = logit_case(4, n=1)
    u, v = (torch.from_numpy(x).double() for x in (case.logits, case.teacher_logits))
    distance = evaluate(LogitDistance(()), samples_of(case))["distance/mean"]
    assert distance**2 == pytest.approx(10 * LogitMSELoss()(u, v).item(), rel=1e-12)


def test_close_logits_keep_their_digits():
    """Their difference of 2^-10 is exact; a difference of squares in float32 would be 0."""
    u = torch.full((4,), 2.0**12)
    v = u + 2.0**-10
    found = evaluate(LogitDistance(()), [dict(logits=u, teacher_logits=v)])
    assert found == {"distance/mean": 2 * 2.0**-10}


def test_names():
    metric = LogitDistance((0.005, 0.07, 0.975))
    assert list(metric.quantiles) == ["q0.5", "q07", "q97.5"]


@pytest.mark.parametrize(
    "quantiles", [(0.5, 0.5), (-0.1,), (1.1,), ("0.5",), (float("nan"),), (True,), (0.5, None)]
)
def test_wrong_quantiles(quantiles):
    with pytest.raises(ValueError, match=r"quantiles must be different numbers in \[0, 1\], got"):
        LogitDistance(quantiles)
