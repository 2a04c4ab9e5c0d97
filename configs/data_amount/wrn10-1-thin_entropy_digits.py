"""The config wrn10-1-thin_digits on the half of which its teacher is most sure.

    python tools/train.py configs/data_amount/wrn10-1-thin_entropy_digits.py
"""
_base_ = '../wrn/wrn10-1-thin_digits.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        scores='work_dirs/wrn16-2_digits/seed0/logits/train.npz',
        by='entropy',
        quantiles=(0., 0.5),
        dataset={{_base_.train_dataloader.dataset}}))
