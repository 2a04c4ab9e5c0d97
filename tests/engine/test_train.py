"""tools/train.py, as its user meets it."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from commands import (
    METRICS,
    METRICS_BESIDE_A_TEACHER,
    STUDENT,
    Tiny,
    error_of,
    folder_of,
    train,
)
from mmengine.config import Config
from mmengine.runner.log_processor import LogProcessor

from mmkd_logit.engine.check import check_config
from mmkd_logit.engine.fingerprint import fingerprint_of, read_run, weights_hash
from mmkd_logit.engine.results import read_lines
from mmkd_logit.engine.train import apply_resume, build_config, build_parser, main

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")


def configure(*words):
    return build_config(build_parser().parse_args([*map(str, words)]))


def iterations(path):
    return torch.load(path, weights_only=False)["meta"]["iter"]


def test_a_launcher_without_torchrun(workplace, capsys):
    assert re.search(
        r"needs RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment; start with "
        r"tools/dist_train.sh CONFIG GPUS or torchrun",
        error_of(capsys, main, STUDENT, "--launcher", "pytorch"),
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("modle.alpha=1", r"modle.alpha: a config has no field 'modle'; did you mean model\?"),
        ("nonsense=1", r"nonsense: a config has no field 'nonsense'$"),
        ("model=3", r"model must be a dict of settings, got 3"),
        ("model=None", r"model must be a dict of settings, got None"),
        ("train_cfg=5", r"train_cfg must be a dict of settings, got 5"),
        ("train_dataloader=abc", r"train_dataloader must be a dict of settings, got 'abc'"),
        ("model.backbone.depth.x=1", r"--cfg-options does not fit the config: depth"),
        ("randomness=3", r"randomness must be a dict of settings, got 3"),
        ("model.type=mmrazor.SingleTeacherDistill", r"mmkd_logit.LogitDistiller, see docs/from-m"),
    ],
)
def test_wrong_options_are_one_line(workplace, capsys, option, message):
    assert re.search(message, error_of(capsys, main, STUDENT, "--cfg-options", option))


@pytest.mark.parametrize("option", ["train_cfg.max_epochs", "=3", "model.depth=[1,(2]"])
def test_wrong_syntax_is_a_usage_error(workplace, capsys, option):
    with pytest.raises(SystemExit) as stopped:
        main([STUDENT, "--cfg-options", option])
    assert stopped.value.code == 2
    assert f"--cfg-options: '{option}'" in capsys.readouterr().err


def test_what_is_looked_at_is_averaged_as_the_losses_in_any_config(workplace):
    """And the sums over classes of the last layer are logged on demand."""
    Path("theirs.py").write_text(f"_base_ = './{STUDENT}'\nlog_processor = dict(window_size=5)\n")
    cfg = configure("theirs.py")
    processor = LogProcessor(**cfg.log_processor)
    for name in ("loss_kd", "kd", "ce", "a/teacher_agreement", "time", "grad_norm"):
        assert processor.mean_pattern.search(name)
    for name in ("lr", "balance", "kd_weight"):
        assert not processor.mean_pattern.search(name)
    assert processor.window_size == 5
    cfg.log_processor.mean_pattern = "mine"
    Path("mine.py").write_text(cfg.pretty_text)
    assert configure("mine.py").log_processor.mean_pattern == "mine"
    option = "default_hooks.classifier_sum.type=mmkd_logit.ClassifierSumHook"
    assert "classifier_sum" not in cfg.default_hooks
    check_config(configure(STUDENT, "--cfg-options", option))


def test_config_without_training_data(workplace, capsys):
    Path("plain.py").write_text(f"_base_ = './{STUDENT}'\ntrain_cfg = None\n")
    message = error_of(capsys, main, "plain.py")
    assert message == "plain.py has no train_cfg or train_dataloader to train with"


def test_missing_teacher_names_the_command(workplace, capsys):
    tiny = Tiny()
    teacher = Path(tiny.teacher).stem
    assert error_of(capsys, main, tiny.kd) == (
        f"the teacher's checkpoint work_dirs/{teacher}/seed0/final.pth does not exist; make it "
        f"with: python tools/train.py {tiny.teacher} --seed 0; or add --train-teacher to train it "
        "first"
    )
    option = "model.teacher.checkpoint=mein Ordner/best.pth"
    assert error_of(capsys, main, tiny.kd, "--train-teacher", "--cfg-options", option) == (
        "the teacher's checkpoint mein Ordner/best.pth does not exist; set "
        f"model.teacher.checkpoint to a checkpoint of {tiny.teacher}"
    )
    assert not Path("work_dirs").exists()


def test_teacher_first_then_student_then_results(workplace, capsys):
    tiny = Tiny()
    train(tiny.kd, "--train-teacher", "--results", "new/runs.jsonl", "--seed", 0)
    teacher, student = folder_of(tiny.teacher), folder_of(tiny.kd)
    assert f"the teacher {teacher}/final.pth is trained first\n" in capsys.readouterr().out
    first, row = read_lines(Path("new/runs.jsonl"))
    assert (first["config"], first["teachers"]) == (tiny.teacher, [])
    assert row["config"] == tiny.kd
    assert row["seed"] == 0
    assert (row["epochs"], row["iterations"], row["resumed_at"]) == (1, 2, 0)
    assert row["teachers"] == [weights_hash(teacher / "final.pth")]
    assert row["weights"] == weights_hash(student / "final.pth")
    assert row["fingerprint"] == fingerprint_of(configure(tiny.kd))
    assert set(row["test"]) == METRICS | METRICS_BESIDE_A_TEACHER
    assert row["overrides"].keys() == {"experiment_name"}
    assert row["command"][:3] == ["python", "tools/train.py", tiny.kd]
    assert row["processes"] == 1
    assert {"python", "torch", "numpy", "mmkd-logit"} < set(row["versions"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["finished"])
    assert row["commit"] is None or re.fullmatch("[0-9a-f]{40}", row["commit"])
    run = read_run(student)
    own = {"logs", "checkpoints"}
    assert set(run) - own == {"fingerprint", "computed", "seed", "teachers", "processes"}
    assert {key: row[key] for key in set(run) - own} == {k: run[k] for k in set(run) - own}

    # The next run finds the teacher.
    before = (teacher / "final.pth").stat().st_mtime_ns
    train(tiny.kd, "--train-teacher", "--seed", 1)
    assert (teacher / "final.pth").stat().st_mtime_ns == before
    assert (folder_of(tiny.kd, seed=1) / "final.pth").is_file()


def sequential(tiny, stages, epochs=2):
    """A copy of the tiny kd config with stages."""
    path = Path(tiny.kd.replace("kd", "seq"))
    path.write_text(
        f"_base_ = './{Path(tiny.kd).name}'\ntrain_cfg = dict(max_epochs={epochs})\n"
        "custom_hooks = [*_base_.custom_hooks, "
        f"dict(type='mmkd_logit.SequentialTeacherHook', stages={stages!r})]\n"
    )
    return str(path)


def test_teachers_of_later_stages_come_first_too(workplace, capsys):
    tiny, other = Tiny(), Tiny()
    later = folder_of(other.teacher, seed=2) / "final.pth"
    stage = dict(begin=1, teacher=dict(config=other.teacher, checkpoint=str(later)))
    config = sequential(tiny, [stage])
    message = error_of(capsys, main, config)
    assert (
        f"{later} does not exist; make it with: python tools/train.py {other.teacher} " in message
    )
    assert not Path("work_dirs").exists()
    train(config, "--train-teacher", "--results", "runs.jsonl")
    files = [folder_of(tiny.teacher) / "final.pth", later]
    *_, row = read_lines(Path("runs.jsonl"))
    assert row["teachers"] == [weights_hash(file) for file in files]
    assert read_run(folder_of(config))["teachers"] == row["teachers"]
    assert row["iterations"] == 4


def test_wrong_stages_are_one_line_and_leave_what_is_there(workplace, capsys):
    tiny = Tiny()
    config = sequential(tiny, [dict(begin=1, alpha=0.5)])
    train(config, "--train-teacher")
    files = [folder_of(config) / name for name in ("final.pth", "last_checkpoint", "epoch_2.pth")]
    before = [file.read_bytes() for file in files]
    for option, words in (
        ("custom_hooks.1.stages.0.begin=-1", r"stages\[0\]\.begin must be .* got -1"),
        ("custom_hooks.1.stages.0.begn=1", r"no setting 'begn'; did you mean begin\?"),
        ("train_cfg.max_epochs=1", r"stages\[0\] begins after 1 epochs, and training ends after 1"),
    ):
        message = error_of(capsys, main, config, "--cfg-options", option)
        assert re.search(words, message)
    assert [file.read_bytes() for file in files] == before


def test_resume_continues(workplace):
    tiny = Tiny()
    folder = folder_of(tiny.student)
    train(tiny.student, "--resume")  # nothing to continue: from the beginning
    assert iterations(folder / "final.pth") == 2
    train(tiny.student, "--resume", "--results", "runs.jsonl", train_cfg__max_epochs=3)
    assert iterations(folder / "final.pth") == 6
    (row,) = read_lines(Path("runs.jsonl"))
    assert (row["resumed_at"], row["iterations"], row["epochs"]) == (2, 6, 3)
    # A finished run: nothing is trained, the file is the same.
    weights = torch.load(folder / "final.pth", weights_only=False)["state_dict"]
    train(tiny.student, "--resume", "--results", "runs.jsonl", train_cfg__max_epochs=3)
    again = torch.load(folder / "final.pth", weights_only=False)["state_dict"]
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    first, second = read_lines(Path("runs.jsonl"))
    assert second["resumed_at"] == second["iterations"] == 6
    assert second["test"] == first["test"]


def test_weights_alone_cannot_be_resumed(workplace, capsys):
    """MMEngine would go on with a new optimizer and the learning rate of the beginning."""
    tiny = Tiny()
    train(tiny.student)
    final = folder_of(tiny.student) / "final.pth"
    torch.save(torch.load(final, weights_only=False)["state_dict"], "weights.pth")
    for file in (final, "weights.pth"):
        message = error_of(capsys, main, tiny.student, "--resume", file)
        assert message.startswith(f"{file} holds weights alone and cannot be resumed; take an ")
    train(tiny.student, load_from="weights.pth")


def test_resuming_under_another_config_disowns_the_weights_at_once(workplace, monkeypatch):
    """They must not be there when the folder says that the new config made them."""
    tiny = Tiny()
    train(tiny.student)
    folder = folder_of(tiny.student)
    seen = []

    def stop(self, runner):
        seen.append((read_run(folder), (folder / "final.pth").is_file()))
        raise OSError("killed")

    monkeypatch.setattr("mmkd_logit.engine.save.FinalCheckpointHook.before_train", stop)
    old = read_run(folder)
    with pytest.raises(SystemExit):
        train(tiny.student, "--resume", train_cfg__max_epochs=2)
    ((origin, final),) = seen
    assert origin != old
    assert not final


def test_resume_after_the_folder_was_moved(workplace):
    tiny = Tiny()
    train(tiny.student)
    shutil.move(folder_of(tiny.student), "moved folder")
    train(tiny.student, "--resume", "--work-dir", "moved folder", train_cfg__max_epochs=2)
    assert iterations("moved folder/final.pth") == 4


def test_a_new_run_disowns_older_checkpoints(workplace, monkeypatch, capsys):
    """Stopped before its first checkpoint it must not be resumed from another run's."""
    tiny = Tiny()
    train(tiny.student)
    folder = folder_of(tiny.student)
    assert (folder / "last_checkpoint").is_file()

    def fail(self, *args):
        raise OSError("the disk is gone")

    monkeypatch.setattr("mmpretrain.models.ImageClassifier.loss", fail)
    option = "model.backbone.drop_rate=0.1"
    message = error_of(capsys, main, tiny.student, "--cfg-options", option)
    assert message == "the disk is gone"
    assert not (folder / "last_checkpoint").exists()
    assert not (folder / "final.pth").exists()
    cfg = configure(tiny.student, "--cfg-options", option)
    assert read_run(folder)["fingerprint"] == fingerprint_of(cfg)


def test_links_in_the_work_folder_are_not_written_through(workplace):
    tiny = Tiny()
    train(tiny.student)
    folder = folder_of(tiny.student)
    Path("precious").mkdir()
    for words, epochs in (([], 1), (["--resume"], 2)):
        links = [path for path in folder.iterdir() if path.is_file() and path.name != ".lock"]
        for path in links:
            path.rename(Path("precious", path.name))
            path.symlink_to(Path("precious", path.name).absolute())
        before = precious()
        assert {"run.json", "last_checkpoint", "final.pth", "epoch_1.pth"} < set(before)
        train(tiny.student, *words, train_cfg__max_epochs=epochs)
        assert precious() == before
        left = {path.name for path in links if path.is_symlink()}
        assert left == ({"epoch_1.pth"} if words else set())


def precious():
    return {p.name: (p.read_bytes(), p.stat().st_ino) for p in Path("precious").iterdir()}


def test_what_resume_changes(tmp_path, capsys):
    cfg = Config(dict(work_dir=str(tmp_path), load_from="pretrained.pth", resume=False))
    apply_resume(cfg, "auto")
    apply_resume(cfg, None)
    assert (cfg.load_from, cfg.resume) == ("pretrained.pth", False)  # fine-tuning begins
    (tmp_path / "last_checkpoint").write_text("gone/epoch_3.pth")
    apply_resume(cfg, "auto")
    assert (cfg.load_from, cfg.resume) == ("pretrained.pth", False)
    assert capsys.readouterr().err == (
        f"warning: no checkpoint of {tmp_path} is whole (the checkpoint gone/epoch_3.pth does not "
        "exist); starting from the beginning\n"
    )
    (tmp_path / "last_checkpoint").write_text("")  # killed while it was written
    apply_resume(cfg, "auto")
    assert (cfg.load_from, cfg.resume) == ("pretrained.pth", False)
    torch.save(dict(state_dict={}), tmp_path / "epoch_3.pth")
    (tmp_path / "last_checkpoint").write_text("gone/epoch_3.pth\n")
    apply_resume(cfg, "auto")
    assert (cfg.load_from, cfg.resume) == (str(tmp_path / "epoch_3.pth"), True)
    apply_resume(cfg, "other.pth")
    assert (cfg.load_from, cfg.resume) == ("other.pth", True)


def test_no_validate(workplace, capsys):
    tiny = Tiny()
    train(tiny.student, "--no-validate")
    assert "Epoch(val)" not in capsys.readouterr().out
    assert (folder_of(tiny.student) / "final.pth").is_file()
