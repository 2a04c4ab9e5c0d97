"""The authors' recipe: 200 epochs, lr 0.1 x 0.1 after 100 and 150, no decay on 1-D parameters."""
optim_wrapper = dict(
    optimizer=dict(type='mmengine.SGD', lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
    paramwise_cfg=dict(norm_decay_mult=0., flat_decay_mult=0., bias_decay_mult=0.))
param_scheduler = dict(type='mmengine.MultiStepLR', by_epoch=True, milestones=[100, 150], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
