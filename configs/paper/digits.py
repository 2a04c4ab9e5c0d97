"""The main job on data that needs no download: do a teacher's logits help a student on digits?

The teacher has learned from all 901 training digits; each student sees one in ten of each class,
always the same 90, for 200 epochs of the paper's recipe. The students have the same network and
optimizer and, for each seed, start from the same weights. Number of epochs, learning rate and
fraction were chosen on the val split with other seeds; the table is of the test split.

    python tools/reproduce.py digits
"""
title = 'Digits: WRN-16-2, which saw all images, teaches a thin WRN-10-1, which sees one in ten'
seeds = 5
folder, kl = 'mmkd_logit::data_amount/', 'wrn16-2_wrn10-1-thin_kl-t3_samples_digits.py'
long = [
    'train_cfg.max_epochs=200', 'param_scheduler.milestones=[100,150]', 'train_cfg.val_interval=50',
    'default_hooks.checkpoint.interval=50']
runs = dict(
    teacher=dict(row='teacher, all images', config='mmkd_logit::wrn/wrn16-2_digits.py', seed=0),
    alone=dict(
        row='student alone', config=folder + 'wrn10-1-thin_samples_digits.py', overrides=long),
    kl3=dict(
        row='student distilled, KL tau 3', config=folder + kl, teacher='teacher', overrides=long),
    kl20=dict(
        row='student distilled, KL tau 20', config=folder + kl, teacher='teacher',
        overrides=[*long, 'model.loss_kd.tau=20']),
    mse=dict(
        row='student distilled, MSE', teacher='teacher', overrides=long,
        config=folder + 'wrn16-2_wrn10-1-thin_mse_samples_digits.py'))
comparisons = [('kl3', 'alone'), ('kl20', 'alone'), ('mse', 'alone')]
