"""WRN-28-4 teaches WRN-16-2 on 10 % of each class, 40 % of the labels wrong; the loss is open."""
_base_ = './wrn28-4-half_wrn16-2-half_sym40.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::noisy_label/wrn28-4-half_samples_sym40.py',
        checkpoint='work_dirs/wrn28-4-half_samples_sym40/seed0/final.pth'))
train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='mmkd_logit.DataSubset',
            per_class=0.1,
            dataset={{_base_.train_dataloader.dataset.dataset}})))
param_scheduler = dict(milestones=[100, 150])
train_cfg = dict(max_epochs=200, val_interval=200)
