"""WRN-28-4 teaches WRN-16-2, both on CIFAR-100N's labels by people; the loss is open."""
_base_ = '../kd/wrn28-4_wrn16-2.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::noisy_label/wrn28-4_human.py',
        checkpoint='work_dirs/wrn28-4_human/seed0/final.pth'))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.NoisyLabelDataset',
        kind='file',
        file='{{$CIFARN_LABELS:data/cifar100n/CIFAR-100_human.pt}}',
        key='{{$CIFARN_KEY:noisy_label}}',
        clean_key='{{$CIFARN_CLEAN_KEY:clean_label}}',
        dataset={{_base_.train_dataloader.dataset}}))
train_evaluator = [
    dict(type='mmpretrain.Accuracy', topk=(1, 5)),
    dict(type='mmkd_logit.CleanLabelAccuracy', topk=(1, 5)),
    dict(type='mmkd_logit.NoisyLabelAccuracy')]
