"""Accuracy on the training images by the labels as trained, and by the clean ones."""
train_evaluator = [
    dict(type='mmpretrain.Accuracy', topk=(1, 5)),
    dict(type='mmkd_logit.CleanLabelAccuracy', topk=(1, 5)),
    dict(type='mmkd_logit.NoisyLabelAccuracy')]
