"""WRN-28-4 on CIFAR-100 after 10 epochs of the recipe: a noisy teacher, by the epoch.

    python tools/train.py configs/noisy_teacher/wrn28-4_10e.py
"""
_base_ = '../wrn/wrn28-4.py'
train_cfg = dict(max_epochs=10)
