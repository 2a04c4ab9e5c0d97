"""The recipe of the paper in small: 30 epochs, lr x 0.1 after half and three quarters."""
_base_ = './cifar_200e.py'
param_scheduler = dict(milestones=[15, 23])
train_cfg = dict(max_epochs=30, val_interval=5)
auto_scale_lr = dict(base_batch_size=64)
