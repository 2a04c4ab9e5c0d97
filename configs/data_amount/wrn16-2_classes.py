"""The config wrn16-2 on 10 % of the classes.

    python tools/train.py configs/data_amount/wrn16-2_classes.py
"""
_base_ = '../wrn/wrn16-2.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        classes=0.1,
        dataset={{_base_.train_dataloader.dataset}}))
