"""The config wrn16-2_wrn10-1-thin_mse_digits on 10 % of the samples of each class.

    python tools/train.py configs/data_amount/wrn16-2_wrn10-1-thin_mse_samples_digits.py
"""
_base_ = '../kd/wrn16-2_wrn10-1-thin_mse_digits.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        per_class=0.1,
        dataset={{_base_.train_dataloader.dataset}}))
