import torch

from mmkd_logit.models import TorchdistillAdapter


def regressor(**kwargs):
    return TorchdistillAdapter(
        "ConvReg",
        **dict(num_input_channels=3, num_output_channels=5, kernel_size=1, stride=1, padding=0)
        | kwargs,
    )


def test_regressor_and_connector():
    x = torch.randn(4, 3, 6, 6)
    assert regressor()(x).shape == (4, 5, 6, 6)
    assert regressor()(x).min() == 0
    assert regressor(uses_relu=False)(x).min() < 0
    assert not regressor().reconstructs


def test_paraphraser_restores_and_translator_does_not():
    x = torch.randn(4, 8, 6, 6)
    paraphraser = TorchdistillAdapter("Paraphraser4FactorTransfer", k=0.5, num_input_channels=8)
    factor = paraphraser(x)
    assert factor.shape == (4, 4, 6, 6)
    assert paraphraser.reconstructs
    assert paraphraser.reconstruct(factor).shape == x.shape
    translator = TorchdistillAdapter(
        "Translator4FactorTransfer", num_input_channels=8, num_output_channels=4
    )
    assert translator(x).shape == factor.shape
    assert not translator.reconstructs
