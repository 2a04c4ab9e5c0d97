"""The config wrn10-1-thin_digits on 10 % of the classes.

    python tools/train.py configs/data_amount/wrn10-1-thin_classes_digits.py
"""
_base_ = '../wrn/wrn10-1-thin_digits.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        classes=0.1,
        dataset={{_base_.train_dataloader.dataset}}))
