"""The config wrn28-4_wrn16-2_kl-t20 on 10 % of the classes.

    python tools/train.py configs/data_amount/wrn28-4_wrn16-2_kl-t20_classes.py
"""
_base_ = '../kd/wrn28-4_wrn16-2_kl-t20.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        classes=0.1,
        dataset={{_base_.train_dataloader.dataset}}))
