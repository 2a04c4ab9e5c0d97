"""The config wrn16-2 on the half of which its teacher is most sure.

    python tools/train.py configs/data_amount/wrn16-2_entropy.py
"""
_base_ = '../wrn/wrn16-2.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        scores='work_dirs/wrn28-4/seed0/logits/train.npz',
        by='entropy',
        quantiles=(0., 0.5),
        dataset={{_base_.train_dataloader.dataset}}))
