"""What is common to all metrics that look at logits."""

import copy
import json
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
from logit_samples import evaluate, logit_case, samples_of
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample
from processes import run_ranks

from mmkd_logit.metrics import (
    ExpectedCalibrationError,
    LogitDistance,
    LogitStatistics,
    NegativeLogLikelihood,
    NoisyLabelAccuracy,
    PerClassAccuracy,
    TeacherAccuracy,
    TeacherAgreement,
    base,
)

TEACHER_KEYS = {
    *("agreement/top1", "agreement/top5", "accuracy/teacher_top1", "distance/mean"),
    *(f"distance/q{q}" for q in ("05", "25", "50", "75", "95")),
    *("logits/teacher_sum_mean", "logits/sum_deviation"),
    *("logits/teacher_entropy", "logits/teacher_tld", "calibration/teacher_nll"),
    *("calibration/teacher_ece", "calibration/teacher_ece_adaptive"),
}
STUDENT_KEYS = {
    *(f"logits/{name}" for name in ("sum_mean", "sum_std", "norm", "entropy", "tld")),
    *(f"calibration/{name}" for name in ("nll", "ece", "ece_adaptive")),
    *(f"class_accuracy/{name}" for name in ("mean", "std", "min")),
    *(f"noisy/{name}" for name in ("top1", "clean_top1", "wrong_memorized", "wrong_recovered")),
}


def all_metrics(out_file=None):
    return [
        TeacherAgreement(),
        TeacherAccuracy(),
        LogitDistance(),
        LogitStatistics(),
        *(NegativeLogLikelihood(of=of) for of in ("student", "teacher")),
        *(
            ExpectedCalibrationError(of=of, binning=binning)
            for of in ("student", "teacher")
            for binning in ("width", "mass")
        ),
        PerClassAccuracy(out_file),
        NoisyLabelAccuracy(),
    ]


NAMES = [
    f"{type(metric).__name__}-{getattr(metric, 'of', '')}-{getattr(metric, 'binning', '')}"
    for metric in all_metrics()
]
OF_LOGITS = [i for i, name in enumerate(NAMES) if "Error-student" not in name]  # not of pred_score


def in_turn(samples, batch_size=64, metrics=None):
    """Batch by batch, as MMEngine's Evaluator does."""
    metrics = metrics or all_metrics()
    for begin in range(0, len(samples), batch_size):
        for metric in metrics:
            metric.process(None, samples[begin : begin + batch_size])
    return {key: x for metric in metrics for key, x in metric.evaluate(len(samples)).items()}


def one_by_one(samples):
    return {key: x for metric in all_metrics() for key, x in evaluate(metric, samples).items()}


def test_the_whole_list_on_data_samples():
    """The keys are all different: else the Evaluator would raise. Its results are plain floats."""
    samples = []
    for sample in samples_of(logit_case(n=100)):
        made = DataSample(metainfo=dict(sample_idx=sample["sample_idx"]))
        made.set_gt_label(sample["gt_label"]).set_pred_score(sample["pred_score"])
        for name in ("logits", "teacher_logits", "prelogits"):
            made.set_field(sample[name], name)
        made.set_field(sample["clean_label"], "clean_label", field_type="metainfo")
        samples.append(made)
    evaluator = Evaluator(all_metrics())
    for begin in range(0, 100, 32):
        evaluator.process(samples[begin : begin + 32])
    found = evaluator.evaluate(100)
    assert set(found) == TEACHER_KEYS | STUDENT_KEYS
    assert all(type(value) is float and np.isfinite(value) for value in found.values())
    assert not any("loss" in key for key in found)
    assert found == one_by_one(samples_of(logit_case(n=100)))


def test_a_plain_student_has_the_students_keys():
    samples = samples_of(logit_case())
    plain = samples_of(logit_case(), "teacher_logits")
    expected = in_turn(samples)
    assert in_turn(plain) == {key: expected[key] for key in STUDENT_KEYS}


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_batches_do_not_matter(batch_size):
    samples = samples_of(logit_case())
    assert in_turn(samples, batch_size) == pytest.approx(one_by_one(samples), rel=1e-12)


def test_what_is_shared_between_metrics_is_the_batchs_own():
    """Metrics in turn share what they stack: another batch of the same size gets its own."""
    first, second = samples_of(logit_case(1)), samples_of(logit_case(2))
    metrics = all_metrics()
    found = [in_turn(samples, metrics=metrics) for samples in (first, second, first)]
    assert found[0] == found[2] == one_by_one(first)
    assert found[1] == one_by_one(second) != found[0]
    # In one list and the same dicts another sample's tensors, students in turn as in a group.
    listed, before = [dict(sample) for sample in first], one_by_one(first)
    metrics = all_metrics()
    for metric in metrics:
        metric.process(None, listed)
    for kept, sample in zip(listed, second, strict=True):
        kept.update(sample)
    others = all_metrics()
    for metric in others:
        metric.process(None, listed)
    assert {k: x for metric in metrics for k, x in metric.evaluate(200).items()} == before
    assert {k: x for metric in others for k, x in metric.evaluate(200).items()} == found[1]


def test_nothing_of_a_batch_is_held_after_the_evaluation():
    in_turn(samples_of(logit_case()))
    assert not base._shared
    metric = LogitDistance()
    metric.process(None, samples_of(logit_case()))
    assert base._shared
    metric.evaluate(200)
    assert not base._shared


def test_shared_work_is_done_once(monkeypatch):
    counted = []
    stack = base.LogitMetric._stack

    def count(self, values, samples, field):
        counted.append(field)
        return stack(self, values, samples, field)

    monkeypatch.setattr(base.LogitMetric, "_stack", count)
    in_turn(samples_of(logit_case()), batch_size=100)
    assert sorted(counted) == sorted(["logits", "teacher_logits", "prelogits", "pred_score"] * 2)


def test_samples_are_left_as_they_were():
    samples = samples_of(logit_case())
    before = copy.deepcopy(samples)
    in_turn(samples)
    for sample, old in zip(samples, before, strict=True):
        assert sample.keys() == old.keys()
        assert all(torch.equal(*map(torch.as_tensor, (sample[k], old[k]))) for k in sample)


def test_each_evaluation_begins_anew_and_copies_are_apart():
    first, second = samples_of(logit_case(1)), samples_of(logit_case(2, n=50))
    metrics = all_metrics()
    copies = copy.deepcopy(metrics)
    values = [in_turn(samples, metrics=metrics) for samples in (first, second, first)]
    assert values[0] == values[2] != values[1] == in_turn(second, metrics=copies)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_computed_in_float64(dtype):
    samples = samples_of(logit_case())
    names = ("logits", "teacher_logits", "prelogits")
    low = [dict(s, **{name: s[name].to(dtype) for name in names}) for s in samples]
    high = [dict(s, **{name: s[name].double().requires_grad_() for name in names}) for s in low]
    assert in_turn(low) == in_turn(high)
    if dtype != torch.float64:
        assert in_turn(low) != in_turn(samples)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_samples_on_a_gpu():
    samples = samples_of(logit_case())
    moved = [
        {k: x.cuda() if isinstance(x, torch.Tensor) else x for k, x in sample.items()}
        for sample in samples
    ]
    assert in_turn(moved) == pytest.approx(in_turn(samples), rel=1e-12)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_empty_batches_and_no_samples(number):
    samples = samples_of(logit_case(n=20))
    metric = all_metrics()[number]
    metric.process(None, [])
    metric.process(None, samples)
    metric.process(None, [])
    assert metric.evaluate(20) == evaluate(all_metrics()[number], samples)
    metric.process(None, [])
    with pytest.raises(ValueError, match="got no samples"):
        metric.evaluate(0)


@pytest.mark.parametrize("number", OF_LOGITS, ids=[NAMES[i] for i in OF_LOGITS])
def test_no_hook(number):
    metric = all_metrics()[number]
    name = type(metric).__name__
    words = rf"{name} needs logits in every sample, 20 of 20 have none; add dict\(type='mmkd_logit."
    with pytest.raises(ValueError, match=words + r"LogitOutputsHook'\) to custom_hooks"):
        metric.process(None, samples_of(logit_case(n=20), "logits"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("number", OF_LOGITS, ids=[NAMES[i] for i in OF_LOGITS])
def test_what_is_not_finite_is_not_hidden(number, value):
    metric = all_metrics()[number]
    of_teacher = getattr(metric, "of", "") == "teacher"
    field = "teacher_logits" if of_teacher else "logits"
    samples = samples_of(logit_case(n=20))
    for row in (5, 11):
        samples[row][field][3] = value
    words = rf"the {field} of sample 1005 are not finite \(2 of 20 samples of the batch\)"
    with pytest.raises(ValueError, match=words):
        metric.process(None, samples)
    del samples[5]["sample_idx"]
    with pytest.raises(ValueError, match="of sample number 5 of its batch are not finite"):
        metric.process(None, samples)


def test_infinities_of_both_signs_and_broken_prelogits():
    """Their sum is NaN, not 0."""
    samples = samples_of(logit_case(n=4))
    samples[2]["prelogits"][:2] = torch.tensor([float("inf"), -float("inf")])
    with pytest.raises(ValueError, match="the prelogits of sample 1002 are not finite"):
        LogitStatistics().process(None, samples)


def test_large_values_are_finite():
    samples = samples_of(logit_case(n=4))
    for sample in samples:
        sample["logits"] = torch.full((10,), 1.7e308, dtype=torch.float64)
    assert evaluate(NegativeLogLikelihood(), samples)["calibration/nll"] == pytest.approx(
        np.log(10)
    )


def broken(row=3, **changes):
    samples = samples_of(logit_case(n=8))
    samples[row].update(changes)
    return samples


@pytest.mark.parametrize(
    ("metric", "samples", "words"),
    [
        (LogitDistance, broken(logits=torch.zeros(9)), r"got shapes \(10,\), \(9,\)"),
        (LogitDistance, broken(logits=torch.zeros(1, 10)), r"got shapes \(1, 10\), \(10,\)"),
        (LogitDistance, broken(logits=None), "logits in every sample, 1 of 8 have none"),
        (LogitDistance, broken(teacher_logits=None), "needs teacher_logits in every sample, 1 of"),
        (LogitStatistics, broken(prelogits=None), "needs prelogits in every sample, 1 of 8"),
        (PerClassAccuracy, broken(gt_label=None), "needs a gt_label in every sample"),
        (PerClassAccuracy, broken(gt_label=torch.tensor([1, 2])), "one label a sample, got 1, 2"),
        (PerClassAccuracy, broken(gt_label=torch.tensor([10])), "from 0 to 9, as there are 10 l"),
        (PerClassAccuracy, broken(gt_label=torch.tensor([-1])), "got gt_label from -1 to"),
        (NoisyLabelAccuracy, broken(clean_label=10), "got clean_label from 0 to 10"),
        (
            NegativeLogLikelihood,
            broken(gt_label=torch.tensor([10])),
            "needs integer labels from 0 to 9",
        ),
        (LogitStatistics, broken(gt_label=torch.tensor([10])), "needs integer labels from 0 to 9"),
    ],
)
def test_broken_samples(metric, samples, words):
    with pytest.raises(ValueError, match=rf"{metric.__name__}.*{words}"):
        metric().process(None, samples)


@pytest.mark.parametrize("metric", [TeacherAgreement, LogitDistance, LogitStatistics])
def test_teacher_of_other_classes(metric):
    samples = samples_of(logit_case(n=4))
    for sample in samples:
        sample["teacher_logits"] = torch.zeros(7)
    words = "a teacher of the student's classes, got teacher_logits for 7 and logits for 10"
    with pytest.raises(ValueError, match=words):
        metric().process(None, samples)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("metric", [TeacherAgreement, LogitStatistics])
def test_batches_with_and_without_a_teacher(metric, order):
    batches = [samples_of(logit_case(n=4)), samples_of(logit_case(n=4), "teacher_logits")][::order]
    made = metric()
    made.process(None, batches[0])
    with pytest.raises(ValueError, match="got batches of two kinds"):
        made.process(None, batches[1])


def test_labels_in_other_shapes_and_types():
    samples = samples_of(logit_case())
    shapes = [lambda y: y, lambda y: y[0], int, lambda y: y.int(), lambda y: y.numpy()]
    others = [
        dict(s, gt_label=shapes[i % 5](s["gt_label"]), clean_label=torch.tensor(s["clean_label"]))
        for i, s in enumerate(samples)
    ]
    metrics = [LogitStatistics(), PerClassAccuracy(), NoisyLabelAccuracy()]
    found = in_turn(others, metrics=metrics)
    assert found == in_turn(samples, metrics=metrics)


SIZES = (37, 38, 1)


def measure_by_ranks(folder):
    dist.init_process_group("gloo")
    os.chdir(folder)  # where MMEngine exchanges results
    found = {}
    for size in SIZES:
        samples, measured = samples_of(logit_case(17, n=size)), {}
        indices = list(DefaultSampler(range(size), shuffle=False))
        for metric in all_metrics(out_file=f"classes_{size}_{dist.get_rank()}.json"):
            for begin in range(0, len(indices), 4):
                metric.process(None, [samples[i] for i in indices[begin : begin + 4]])
            measured.update(metric.evaluate(size))
        found[size] = dict(metrics=measured, indices=indices)
    torch.save(found, f"{dist.get_rank()}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_equal_one(tmp_path, world):
    """The odd sizes are padded by samples; counting them twice gives other values."""
    run_ranks(world, measure_by_ranks, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(world)]
    for size in SIZES:
        results = [of_rank[size] for of_rank in found]
        first = results[0]
        assert all(result["metrics"] == first["metrics"] for result in results)
        samples = samples_of(logit_case(17, n=size))
        expected = in_turn(samples)
        assert expected == pytest.approx(first["metrics"], rel=1e-12)
        seen = [index for result in results for index in result["indices"]]
        assert len(seen) == -(-size // world) * world
        if size == 37:
            padded = in_turn([samples[i] for i in seen])
            same = [key for key in expected if padded[key] == pytest.approx(expected[key])]
            # The repeated samples are none of those that could change these.
            assert set(same) <= {"class_accuracy/min", "noisy/wrong_memorized"}
        # Only the main process writes.
        assert not (tmp_path / f"classes_{size}_1.json").exists()
        counts = json.loads((tmp_path / f"classes_{size}_0.json").read_text())["samples"]
        assert sum(counts) == size
