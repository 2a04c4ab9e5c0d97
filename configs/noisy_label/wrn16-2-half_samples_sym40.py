"""WRN-16-2 at half resolution on 10 % of each class, 40 % symmetric label noise, 200 epochs.

    python tools/train.py configs/noisy_label/wrn16-2-half_samples_sym40.py --fast
"""
_base_ = './wrn16-2-half_sym40.py'
train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='mmkd_logit.DataSubset',
            per_class=0.1,
            dataset={{_base_.train_dataloader.dataset.dataset}})))
param_scheduler = dict(milestones=[100, 150])
train_cfg = dict(max_epochs=200, val_interval=200)
