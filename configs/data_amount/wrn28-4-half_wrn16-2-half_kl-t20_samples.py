"""The config wrn28-4-half_wrn16-2-half_kl-t20 on 10 % of the samples of each class.

    python tools/train.py configs/data_amount/wrn28-4-half_wrn16-2-half_kl-t20_samples.py --fast
"""
_base_ = '../kd/wrn28-4-half_wrn16-2-half_kl-t20.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        per_class=0.1,
        dataset={{_base_.train_dataloader.dataset}}))
