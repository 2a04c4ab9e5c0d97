"""WRN-16-2 teaches thin WRN-10-1, both on digits with 40 % wrong labels; the loss is open."""
_base_ = '../kd/wrn16-2_wrn10-1-thin_digits.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::noisy_label/wrn16-2_sym40_digits.py',
        checkpoint='work_dirs/wrn16-2_sym40_digits/seed0/final.pth'))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.NoisyLabelDataset',
        kind='symmetric',
        rate=0.4,
        seed=0,
        dataset={{_base_.train_dataloader.dataset}}))
train_evaluator = [
    dict(type='mmpretrain.Accuracy', topk=(1, 5)),
    dict(type='mmkd_logit.CleanLabelAccuracy', topk=(1, 5)),
    dict(type='mmkd_logit.NoisyLabelAccuracy')]
