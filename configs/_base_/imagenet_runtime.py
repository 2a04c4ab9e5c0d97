"""The runtime of ImageNet: cuDNN's fastest kernels for one size, gradients in DDP's buckets."""
_base_ = './default_runtime.py'
env_cfg = dict(cudnn_benchmark=True)
model_wrapper_cfg = dict(
    type='mmengine.MMDistributedDataParallel', broadcast_buffers=False,
    gradient_as_bucket_view=True)
