"""Like default_runtime.py, for runs of a few seconds."""
_base_ = './default_runtime.py'
default_hooks = dict(logger=dict(interval=15), checkpoint=dict(interval=10))
