"""tools/test.py, as its user meets it."""

import json
import os
import pickle
import re
from pathlib import Path

import commands
import pytest
import torch
import yaml
from commands import METRICS, METRICS_BESIDE_A_TEACHER, STUDENT, Tiny, error_of, folder_of

from mmkd_logit.engine.test import main


class Trained:
    """A tiny distilling run in a folder of its own."""

    def __init__(self, folder):
        os.chdir(folder)
        commands.make_workplace(folder)
        self.tiny = Tiny()
        commands.train(self.tiny.kd, "--train-teacher", train_cfg__max_epochs=2)
        self.checkpoint = folder_of(self.tiny.kd) / "final.pth"


def metrics_of(config, checkpoint, tmp_path, *words):
    out = tmp_path / "metrics.json"
    commands.test(config, checkpoint, "--out", out, "--out-item", "metrics", *words)
    return json.loads(out.read_text())


def test_the_plain_config_measures_what_the_distilling_one_does(trained, tmp_path):
    student = metrics_of(trained.tiny.student, trained.checkpoint, tmp_path)
    distilled = metrics_of(trained.tiny.kd, trained.checkpoint, tmp_path)
    assert set(student) == METRICS
    assert set(distilled) == METRICS | METRICS_BESIDE_A_TEACHER
    assert student.items() < distilled.items()
    teacher = folder_of(trained.tiny.teacher) / "final.pth"
    assert student != metrics_of(trained.tiny.student, teacher, tmp_path)


@pytest.mark.parametrize("reach", ["here", "network"])
def test_testing_needs_no_teacher(trained, tmp_path, capsys, reach):
    lonely, words = Tiny(), []
    assert not folder_of(lonely.teacher).exists()
    if reach == "network":
        words = ["--cfg-options", "model.teacher.checkpoint=http://127.0.0.1:9/teacher.pth"]
    metrics = metrics_of(lonely.kd, trained.checkpoint, tmp_path, *words)
    why = dict(here="it is not there", network="http://127.0.0.1:9/teacher.pth cannot be downl")
    assert f"nothing is compared with the teacher: {why[reach]}" in capsys.readouterr().err
    assert metrics == metrics_of(trained.tiny.student, trained.checkpoint, tmp_path)


def test_flips_of_test_time_augmentation(trained, tmp_path):
    """Both views unflipped give the plain result; the default flips do not."""
    plain = metrics_of(trained.tiny.kd, trained.checkpoint, tmp_path)
    same = Path("tiny/same.py")
    pack = "dict(type='PackInputs')"
    flips = "[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=0.0)]"
    same.write_text(
        f"_base_ = './{Path(trained.tiny.kd).name}'\n"
        f"tta_pipeline = [dict(type='TestTimeAug', transforms=[{flips}, [{pack}]])]\n"
    )
    joined = metrics_of(str(same), trained.checkpoint, tmp_path, "--tta")
    names = "accuracy/top1 accuracy/top5 calibration/ece calibration/ece_adaptive"
    plain = {key: plain[key] for key in names.split()}  # joined predictions have no logits
    assert joined == plain
    for config in (trained.tiny.kd, trained.tiny.student):
        flipped = metrics_of(config, trained.checkpoint, tmp_path, "--tta")
        assert flipped.keys() == plain.keys()
        assert flipped != plain


def test_results_files(trained, tmp_path):
    folder = tmp_path / "neuer Ordner"
    words = [trained.tiny.student, trained.checkpoint]
    commands.test(*words, "--out", folder / "predictions.pkl")
    predictions = pickle.loads((folder / "predictions.pkl").read_bytes())
    assert len(predictions) == 100
    assert predictions[0]["pred_score"].shape == (10,)
    assert (folder / "predictions.pkl").stat().st_size < 100 * 2500
    for tensor in filter(torch.is_tensor, predictions[7].values()):  # alone, not its batch's
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
    commands.test(*words, "--out", folder / "m.yaml", "--out-item", "metrics")
    from_yaml = yaml.safe_load((folder / "m.yaml").read_text())
    assert from_yaml == metrics_of(*words, tmp_path)
    labels = torch.tensor([int(p["gt_label"]) for p in predictions])
    guesses = torch.tensor([int(p["pred_label"]) for p in predictions])
    accuracy = 100 * (labels == guesses).float().mean().item()
    assert from_yaml["accuracy/top1"] == pytest.approx(accuracy)


def test_metrics_that_are_no_numbers(trained, tmp_path):
    """mmpretrain's confusion matrix is a tensor."""
    config = Path("tiny/matrix.py")
    config.write_text(
        f"_base_ = './{Path(trained.tiny.student).name}'\n"
        "test_evaluator = dict(_delete_=True, type='ConfusionMatrix')\n"
    )
    matrix = metrics_of(str(config), trained.checkpoint, tmp_path)["confusion_matrix/result"]
    assert sum(map(sum, matrix)) == 100


def test_pictures(trained, tmp_path):
    words = [trained.tiny.kd, trained.checkpoint, "--show-dir", tmp_path / "out", "--interval", 50]
    commands.test(*words)
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_mixed_precision_on_a_cpu(trained, tmp_path):
    assert metrics_of(trained.tiny.student, trained.checkpoint, tmp_path, "--amp").keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out-item", "pred"], r"--out-item says what to write; add --out FILE"),
        (["--out", "x.json"], r"--out x.json: pred can be written to .pkl$"),
        (["--out", "x.json", "--out-item", "pred"], r"pred can be written to .pkl$"),
        (["--out", "x.txt", "--out-item", "metrics"], r"metrics can be written to .json, .yaml"),
        (["--cfg-options", "default_hooks.visualization=None", "--show-dir", "o"], r"--show needs"),
        (["--cfg-options", "test_dataloader=3"], r"test_dataloader must be a dict of settings"),
    ],
)
def test_wrong_words_are_one_line(trained, capsys, words, message):
    error = error_of(capsys, main, trained.tiny.student, trained.checkpoint, *words)
    assert re.search(message, error)


@pytest.mark.parametrize("field", ["test_dataloader", "test_evaluator"])
def test_config_without_test_data(workplace, capsys, field):
    Path("plain.py").write_text(f"_base_ = './{STUDENT}'\n{field} = None\n")
    Path("x.pth").touch()
    error = error_of(capsys, main, "plain.py", "x.pth")
    assert error == "plain.py has no test_dataloader or test_evaluator"
