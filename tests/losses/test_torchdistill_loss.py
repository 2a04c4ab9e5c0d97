import pytest
import torch
import torch.nn.functional as F

from mmkd_logit.losses import TorchdistillLoss
from mmkd_logit.losses.feature import find_torchdistill


def maps(student=(4, 3, 5, 5), teacher=(4, 3, 5, 5), dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in (student, teacher)]


def attention(z, mode):
    z = z.square()
    return F.normalize((z.mean(1) if mode == "code" else z.sum(1)).flatten(1))


@pytest.mark.parametrize("mode", ["code", "paper"])
def test_attention(mode):
    s, t = maps(teacher=(4, 8, 5, 5))
    a, b = attention(s, mode), attention(t, mode)
    want = (a - b).square().mean() if mode == "code" else (a - b).norm(dim=1).mean()
    torch.testing.assert_close(TorchdistillLoss("ATLoss", mode=mode)(s, t), want)


def test_hint():
    s, t = maps()
    torch.testing.assert_close(TorchdistillLoss("MSELoss")(s, t), (s - t).square().mean())
    total = TorchdistillLoss("L1Loss", reduction="sum")(s, t)
    torch.testing.assert_close(total, (s - t).abs().sum())


@pytest.mark.parametrize("p", [1, 2])
def test_factors(p):
    s, t = maps()
    a, b = F.normalize(s.flatten(1)), F.normalize(t.flatten(1))
    want = (a - b).abs().mean() if p == 1 else (a - b).norm(dim=1).mean()
    torch.testing.assert_close(TorchdistillLoss("FTLoss", p=p)(s, t), want)


@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_activation_boundaries(margin):
    s, t = maps()
    above = (t > 0).double()
    want = above * (margin - s).relu().square() + (1 - above) * (margin + s).relu().square()
    loss = TorchdistillLoss("AltActTransferLoss", margin=margin)
    torch.testing.assert_close(loss(s, t), want.sum() / 4)


NAMES = ["MSELoss", "ATLoss", "FTLoss", "AltActTransferLoss"]


@pytest.mark.parametrize("name", NAMES)
def test_the_student_alone_receives_gradient(name):
    s, t = (z.requires_grad_() for z in maps())
    TorchdistillLoss(name)(s, t).backward()
    assert t.grad is None
    assert s.grad.isfinite().all()
    assert s.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_raised_first(name):
    s, t = (100 * z for z in maps(dtype=torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        value = TorchdistillLoss(name)(s, t)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, TorchdistillLoss(name)(s.float(), t.float()))


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name):
    agree = (4, 8, 5, 5) if name == "ATLoss" else (4, 3, 5, 5)
    loss = TorchdistillLoss(name)
    loss(*maps(teacher=agree))
    for shape in {(3, *agree[1:]), (4, 8, 5, 4), (1, 3, 5, 5), (4, 3, 5)}:
        with pytest.raises(ValueError, match=f"{name} takes .* got .*an adapter"):
            loss(*maps(teacher=shape))


def test_unknown_names_and_settings_are_not_passed_over():
    with pytest.raises(ValueError, match=r"'CRDLoss' is not one of 'ATLoss'"):
        TorchdistillLoss("CRDLoss")
    with pytest.raises(ValueError, match=r"ATLoss has no setting 'mdoe'; did you mean mode\?"):
        TorchdistillLoss("ATLoss", mdoe="paper")
    with pytest.raises(ValueError, match=r"no setting 'at_pairs'"):
        TorchdistillLoss("ATLoss", at_pairs={})
    with pytest.raises(ValueError, match=r"MSELoss has no setting 'margin'; it takes"):
        TorchdistillLoss("MSELoss", margin=1)


def test_without_torchdistill_the_extra_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="torchdistill")

    monkeypatch.setattr("mmkd_logit.losses.feature.import_module", missing)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[methods\]"'):
        TorchdistillLoss("ATLoss")
    with pytest.raises(ImportError, match="ConvReg is torchdistill's, which is not installed"):
        find_torchdistill("models.adaptation", "ConvReg")


def test_what_torchdistill_lacks_is_not_taken_for_it(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr("mmkd_logit.losses.feature.import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="scipy"):
        TorchdistillLoss("ATLoss")
