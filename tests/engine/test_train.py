"""tools/train.py, as its user meets it."""

import re
from pathlib import Path

import pytest
import torch
from commands import (
    KD,
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
from mmkd_logit.engine.train import apply_resume, build_config, build_parser, main, plan_runs

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")


def configure(*words):
    return build_config(build_parser().parse_args([*map(str, words)]))


def iterations(path):
    return torch.load(path, weights_only=False)["meta"]["iter"]


@pytest.mark.parametrize(
    ("config", "option", "message"),
    [
        ("configs", "resume=False", r"the config configs does not exist"),
        (STUDENT, "nonsense=1", r"nonsense: a config has no field 'nonsense'$"),
        (STUDENT, "model=3", r"model must be a dict of settings, got 3"),
        (STUDENT, "train_dataloader=None", r"a run needs .*; train_dataloader is missing"),
        (STUDENT, "model.backbone.depth.x=1", r"--cfg-options does not fit the config: depth"),
        (STUDENT, "randomness=3", r"randomness must be a dict of settings, got 3"),
        (STUDENT, "randomness.seed=True", r"randomness.seed must be an integer .* got True"),
        (KD, "model.type=mmrazor.SingleTeacherDistill", r"LogitDistiller, see docs/from-m"),
    ],
)
def test_wrong_options_are_one_line(workplace, capsys, config, option, message):
    assert re.search(message, error_of(capsys, main, config, "--cfg-options", option))


@pytest.mark.parametrize("option", ["=3", "model.depth=[1,(2]"])
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


def test_results_need_test_data_before_training(workplace, capsys):
    fields = ("test_dataloader", "test_evaluator", "test_cfg")
    lines = [f"_base_ = './{STUDENT}'", *(f"{field} = None" for field in fields)]
    Path("plain.py").write_text("\n".join(lines))
    message = error_of(capsys, main, "plain.py", "--results", "runs.jsonl")
    assert message.endswith("lacks test_dataloader, test_cfg, test_evaluator")
    assert not Path("work_dirs").exists()


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


def test_teachers_of_later_stages_come_first_too(workplace, capsys):
    tiny, other = Tiny(), Tiny()
    later = folder_of(other.teacher, seed=2) / "final.pth"
    stage = dict(begin=1, teacher=dict(config=other.teacher, checkpoint=str(later)))
    hook = dict(type="mmkd_logit.SequentialTeacherHook", stages=[stage])
    text = f"custom_hooks = [*_base_.custom_hooks, {hook}]\ntrain_cfg = dict(max_epochs=2)\n"
    config = tiny.kd.replace("kd", "seq")
    Path(config).write_text(f"_base_ = './{Path(tiny.kd).name}'\n{text}")
    message = error_of(capsys, main, config)
    assert (
        f"{later} does not exist; make it with: python tools/train.py {other.teacher} " in message
    )
    assert not Path("work_dirs").exists()
    planned = plan_runs(build_parser().parse_args([config, "--train-teacher"]))
    folders = [folder_of(tiny.teacher), later.parent, folder_of(config)]
    assert [Path(run.cfg.work_dir) for run in planned.values()] == folders


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
    torch.save(dict(weight=torch.zeros(1)), "weights.pth")
    message = error_of(capsys, main, STUDENT, "--resume", "weights.pth")
    assert message.startswith("weights.pth holds weights alone and cannot be resumed; take an ")


def test_a_changed_and_a_new_run_disown_what_is_there_at_once(workplace, monkeypatch, capsys):
    """Weights must not be there when the folder says that another config made them."""
    tiny = Tiny()
    train(tiny.student)
    folder = folder_of(tiny.student)
    old = read_run(folder)

    def fail(self, *args):
        raise OSError("the disk is gone")

    monkeypatch.setattr("mmkd_logit.engine.save.FinalCheckpointHook.before_train", fail)
    longer, other = "train_cfg.max_epochs=2", "model.backbone.drop_rate=0.1"
    for words, kept in (
        (["--resume", "--cfg-options", longer], True),
        (["--cfg-options", other], False),
    ):
        assert (folder / "last_checkpoint").is_file()
        assert error_of(capsys, main, tiny.student, *words) == "the disk is gone"
        assert read_run(folder)["fingerprint"] == fingerprint_of(configure(tiny.student, *words))
        assert read_run(folder) != old
        assert not (folder / "final.pth").exists()
        assert (folder / "last_checkpoint").exists() == kept


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
