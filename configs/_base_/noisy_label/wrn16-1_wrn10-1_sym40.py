"""WRN-16-1 teaches WRN-10-1, both on CIFAR-100 with 40 % wrong labels; the loss is open."""
_base_ = '../kd/wrn16-1_wrn10-1.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::noisy_label/wrn16-1_sym40.py',
        checkpoint='work_dirs/wrn16-1_sym40/seed0/final.pth'))
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
