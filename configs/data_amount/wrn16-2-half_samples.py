"""The config wrn16-2-half on 10 % of the samples of each class.

    python tools/train.py configs/data_amount/wrn16-2-half_samples.py --fast
"""
_base_ = '../wrn/wrn16-2-half.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        per_class=0.1,
        dataset={{_base_.train_dataloader.dataset}}))
