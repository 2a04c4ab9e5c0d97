"""A run that other numbers of processes go on with."""

from cut_off import from_memory, kind_of_run
from mmengine.hooks import Hook
from runs import digits_distiller, digits_student


def steady(folder, batch_size):
    """Config of a run without batch statistics and dropout, which may be cut into two halves."""
    student = digits_student()
    student["backbone"]["norm_eval"] = True
    model = digits_distiller(student, alpha=0.5)
    return from_memory(kind_of_run(folder, model, 2, batch_size=batch_size, log_level="INFO"))


class Served(Hook):
    """Notes which samples each iteration sees."""

    def __init__(self):
        self.samples = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.samples[runner.iter] = sorted(data_batch["data_samples"].index.tolist())
