"""WRN-28-4 at half resolution on 10 % of each class, 40 % symmetric label noise, 200 epochs.

Few images for many epochs: it learns the wrong labels by heart.

    python tools/train.py configs/noisy_label/wrn28-4-half_samples_sym40.py --fast
"""
_base_ = './wrn28-4-half_sym40.py'
train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='mmkd_logit.DataSubset',
            per_class=0.1,
            dataset={{_base_.train_dataloader.dataset.dataset}})))
param_scheduler = dict(milestones=[100, 150])
train_cfg = dict(max_epochs=200, val_interval=200)
