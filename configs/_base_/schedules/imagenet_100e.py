"""Overhaul's recipe, as far as known: 100 epochs, batch 256, lr 0.1 x 0.1 every 30, decay 1e-4."""
_base_ = 'mmpretrain::_base_/schedules/imagenet_bs256.py'
optim_wrapper = dict(optimizer=dict(nesterov=True))
