"""The config wrn28-4_wrn16-2_kl-t20 on the half of which its teacher is most sure.

    python tools/train.py configs/data_amount/wrn28-4_wrn16-2_kl-t20_entropy.py
"""
_base_ = '../kd/wrn28-4_wrn16-2_kl-t20.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        scores='work_dirs/wrn28-4/seed0/logits/train.npz',
        by='entropy',
        quantiles=(0., 0.5),
        dataset={{_base_.train_dataloader.dataset}}))
