"""Chains of runs, as their user meets them."""

import functools
import gc
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch
from commands import KD, PROJECT, STUDENT, Tiny, error_of, folder_of, long_chain, train, write_chain
from mmengine.config import Config
from mmengine.runner import Runner

from mmkd_logit.checkpoint import load_from_file
from mmkd_logit.engine import chain as chain_run
from mmkd_logit.engine import test as test_tool
from mmkd_logit.engine.chain import is_chain, read_chain
from mmkd_logit.engine.fingerprint import describe_run, read_run, weights_hash, write_run
from mmkd_logit.engine.results import read_lines
from mmkd_logit.engine.train import build_config, build_parser, main

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")

WIDER = ["model.backbone.widen_factor=2", "model.head.in_channels=32"]


def three(first=(), last=(), path=None, **kwargs):
    """A chain of plain training and two generations of the same config."""
    tiny = Tiny()
    stages = [
        dict(config=tiny.teacher, overrides=list(first)),
        dict(config=tiny.kd),
        dict(config=tiny.kd, overrides=list(last)),
    ]
    return write_chain(*stages, path=path, **kwargs), stages


def stage_folders(chain, seed=0):
    return sorted(folder_of(chain, seed).glob("[0-9]_*"))


def finals(chain, seed=0):
    return [folder / "final.pth" for folder in stage_folders(chain, seed)]


def said(capsys):
    """What was said of each stage, without its number and config."""
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stage ")]
    for number, line in enumerate(lines, 1):
        assert line.startswith(f"stage {number} of {len(lines)}, ")
    return [line.split(": ", 1)[1] for line in lines]


def iterations(path):
    return torch.load(path, weights_only=False)["meta"]["iter"]


def weights_of(path):
    return torch.load(path, weights_only=False)["state_dict"]


def test_each_student_teaches_the_next_and_is_skipped_when_finished(workplace, capsys):
    chain, stages = three()
    train(chain, "--results", "runs.jsonl")
    folders = stage_folders(chain)
    assert [f.name for f in folders] == [
        f"{k}_{Path(stage['config']).stem}" for k, stage in enumerate(stages, 1)
    ]
    assert said(capsys) == [f"starts in {folder}" for folder in folders]
    rows = read_lines(Path("runs.jsonl"))
    assert [row["config"] for row in rows] == [stage["config"] for stage in stages]
    weights = [weights_hash(final) for final in finals(chain)]
    assert len(set(weights)) == 3
    assert [row["weights"] for row in rows] == weights
    assert [row["teachers"] for row in rows] == [[], weights[:1], weights[1:2]]
    assert [row["resumed_at"] for row in rows] == [0, 0, 0]
    assert [row["command"][2] for row in rows] == [chain] * 3
    assert rows[2]["overrides"]["model.teacher"] == [
        dict(config=stages[1]["config"], checkpoint=str(finals(chain)[1]))
    ]
    # Generations of the same config are different runs.
    students = [weights_of(final) for final in finals(chain)[1:]]
    assert not torch.equal(students[0]["head.fc.weight"], students[1]["head.fc.weight"])

    written = [final.stat().st_mtime_ns for final in finals(chain)]
    train(chain, "--results", "runs.jsonl")
    assert said(capsys) == [f"finished before, {final}" for final in finals(chain)]
    assert [final.stat().st_mtime_ns for final in finals(chain)] == written
    assert read_lines(Path("runs.jsonl")) == rows


def test_a_stage_is_what_the_same_run_alone_gives(workplace):
    """Nothing of the stage before but its weights reaches a stage."""
    chain, stages = three()
    train(chain)
    _, second, third = finals(chain)
    train(
        stages[2]["config"],
        model__teacher__config=stages[1]["config"],
        model__teacher__checkpoint=second,
    )
    alone = weights_of(folder_of(stages[2]["config"]) / "final.pth")
    assert all(torch.equal(value, alone[key]) for key, value in weights_of(third).items())


def test_a_changed_stage_invalidates_those_behind_it(workplace, capsys):
    chain, stages = three()
    train(chain)
    first, second, third = stage_folders(chain)
    said(capsys)

    stages[2]["overrides"] = ["model.alpha=0.9"]
    write_chain(*stages, path=chain)
    before = [final.read_bytes() for final in finals(chain)]
    train(chain)
    assert said(capsys) == [
        f"finished before, {first}/final.pth",
        f"finished before, {second}/final.pth",
        f"starts anew in {third}: model.alpha: not set -> 0.9",
    ]
    after = [final.read_bytes() for final in finals(chain)]
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, True, False]

    stages[0]["overrides"] = ["optim_wrapper.optimizer.lr=0.05"]
    write_chain(*stages, path=chain)
    train(chain)
    texts = said(capsys)
    assert texts[0] == f"starts anew in {first}: optim_wrapper.optimizer.lr: 0.1 -> 0.05"
    assert texts[1].startswith(f"starts anew in {second}: model.teacher.0.weights: ")
    assert texts[2].startswith(f"starts anew in {third}: model.teacher.0.weights: ")
    train(chain)
    assert {text.split(",")[0] for text in said(capsys)} == {"finished before"}

    # An option of the command line is part of every stage, those of the stage are not lost.
    train(chain, train_dataloader__batch_size=16)
    texts = said(capsys)
    assert len(texts) == 3
    assert all("processes x train_dataloader.batch_size: 1 x " in text for text in texts), texts
    assert [iterations(final) for final in finals(chain)] == [4, 4, 4]
    assert read_run(first)["fingerprint"] == read_chain_origin(
        chain, "train_dataloader.batch_size=16"
    )


def read_chain_origin(chain, *options):
    words = [chain, "--cfg-options", *options]
    cfg = read_chain(build_parser().parse_args(words), build_config)[0].cfg
    assert cfg.optim_wrapper.optimizer.lr == 0.05
    return describe_run(cfg)["fingerprint"]


def test_a_replaced_config_has_a_folder_of_its_own(workplace, capsys):
    chain, stages = three()
    train(chain)
    said(capsys)
    other = Tiny()
    stages[1]["config"] = other.kd
    write_chain(*stages, path=chain)
    train(chain)
    _, old, new, last = stage_folders(chain)
    assert sorted([old.name, new.name]) == sorted(
        [f"2_{Path(stages[2]['config']).stem}", f"2_{Path(other.kd).stem}"]
    )
    texts = said(capsys)
    assert texts[0].startswith("finished before")
    assert texts[1] == f"starts in {folder_of(chain)}/2_{Path(other.kd).stem}"
    # The other stage 2 learned the same, byte for byte, and lies elsewhere.
    assert texts[2] == f"finished before, {last}/final.pth"


def test_weights_that_nobody_answers_for_are_not_finished(workplace, capsys):
    chain, _ = three()
    train(chain)
    second = stage_folders(chain)[1]
    (second / "run.json").unlink()
    said(capsys)
    train(chain)
    texts = said(capsys)
    assert texts[0].startswith("finished before")
    assert texts[1] == f"starts anew in {second}: nothing says what made {second}/final.pth"
    assert texts[2].startswith("finished before")  # its teacher is the same again, byte for byte


def test_other_weights_of_the_same_stage_are_another_teacher(workplace, capsys):
    chain, _ = three()
    train(chain)
    first = finals(chain)[0]
    checkpoint = torch.load(first, weights_only=False)
    checkpoint["state_dict"]["head.fc.weight"] += 1
    torch.save(checkpoint, first)
    said(capsys)
    train(chain)
    texts = said(capsys)
    assert texts[0].startswith("finished before")
    changes = [text.split(": ")[1] for text in texts[1:]]
    assert changes == ["model.teacher.0.weights"] * 2


def test_a_stage_that_fails_stops_the_chain_and_starts_again(workplace, monkeypatch, capsys):
    chain, _ = three()

    def fail(self, *args, **kwargs):
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("mmkd_logit.models.LogitDistiller.loss", fail)
        assert error_of(capsys, main, chain) == "the disk is gone"
    _, second = stage_folders(chain)
    assert not (second / "final.pth").exists()
    train(chain)
    texts = said(capsys)
    assert texts[0].startswith("finished before")
    assert texts[1] == f"was cut off before its first checkpoint, starts again in {second}"
    assert all(final.is_file() for final in finals(chain))


def test_another_seed_is_another_chain(workplace, capsys):
    chain, _ = three(more="randomness = dict(seed=4)")
    train(chain, "--results", "runs.jsonl")
    train(chain, "--results", "runs.jsonl", "--seed", 5)
    train(chain, "--results", "runs.jsonl", randomness__seed=6)
    assert [row["seed"] for row in read_lines(Path("runs.jsonl"))] == [4] * 3 + [5] * 3 + [6] * 3
    for seed in (4, 5, 6):
        assert all(final.is_file() for final in finals(chain, seed))
        assert len(stage_folders(chain, seed)) == 3
    said_all = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stage ")]
    assert len(said_all) == 9
    assert all(": starts in " in line for line in said_all)
    train(chain, "--work-dir", folder_of(chain, 4), "--seed", 5)
    changed = "randomness.seed: 4 -> 5"
    assert said(capsys)[0] == f"starts anew in {stage_folders(chain, 4)[0]}: {changed}"
    assert read_run(stage_folders(chain, 4)[0])["seed"] == 5


def test_folder_and_epochs(workplace, capsys):
    chain, _ = three(more="work_dir = 'from the file'")
    train(chain)
    assert len(list(Path("from the file").glob("*/final.pth"))) == 3
    # A comma in a path makes no list of it.
    train(chain, "--work-dir", "mine, too", "--epochs", 2)
    assert [iterations(file) for file in Path("mine, too").glob("*/final.pth")] == [4, 4, 4]
    assert not Path("work_dirs").exists()


def test_what_overrides_make_of_a_network_teaches(workplace):
    chain, stages = three(first=WIDER)
    train(chain, "--results", "runs.jsonl")
    rows = read_lines(Path("runs.jsonl"))
    assert len(rows) == 3
    assert weights_of(finals(chain)[0])["head.fc.weight"].shape == (10, 32)
    (teacher,) = rows[1]["overrides"]["model.teacher"]
    assert teacher["config"]["model"]["backbone"]["widen_factor"] == 2
    # The row's overrides are what the command line takes.
    words = [stages[1]["config"], "--cfg-options", f"model.teacher={[teacher]!r}"]
    words += ["--work-dir", str(stage_folders(chain)[1])]
    again = build_config(build_parser().parse_args(words))
    assert describe_run(again)["fingerprint"] == rows[1]["fingerprint"]


def test_teacher_of_a_first_distilling_stage(workplace, capsys):
    tiny = Tiny()
    chain = write_chain(dict(config=tiny.kd), dict(config=tiny.kd))
    teacher = folder_of(tiny.teacher) / "final.pth"
    message = error_of(capsys, main, chain)
    assert message.startswith(f"{chain}, stage 1: the teacher's checkpoint {teacher} does not")
    assert "--train-teacher" in message
    assert not Path("work_dirs").exists()
    train(chain, "--train-teacher", "--results", "runs.jsonl")
    rows = read_lines(Path("runs.jsonl"))
    assert [row["teachers"] for row in rows] == [[weights_hash(teacher)], [rows[0]["weights"]]]
    said(capsys)
    train(chain, "--train-teacher")
    assert {text.split(",")[0] for text in said(capsys)} == {"finished before"}
    # Without the teacher nobody knows whether it changed; what it made stays all the same.
    teacher.unlink()
    before = [final.read_bytes() for final in finals(chain)]
    assert f"{teacher} does not exist" in error_of(capsys, main, chain)
    assert [final.read_bytes() for final in finals(chain)] == before


def test_teacher_of_a_stage_computes_as_the_config_says(workplace, capsys):
    tiny = Tiny()
    with open(tiny.kd, "a") as file:
        file.write("model['teacher'].update(micro_batch=8, autocast='bfloat16')\n")
    chain = write_chain(dict(config=tiny.student), dict(config=tiny.kd))
    train(chain, "--results", "runs.jsonl")
    (teacher,) = read_lines(Path("runs.jsonl"))[1]["overrides"]["model.teacher"]
    assert teacher["checkpoint"] == str(finals(chain)[0])
    assert (teacher["micro_batch"], teacher["autocast"]) == (8, "bfloat16")


def test_missing_teacher_of_a_later_stage_is_known_at_once(workplace, capsys):
    tiny, other = Tiny(), Tiny()
    config = Path("tiny/later.py")
    later = dict(begin=1, teacher=dict(config=other.teacher, checkpoint="gone/final.pth"))
    config.write_text(
        f"_base_ = './{Path(tiny.kd).name}'\ntrain_cfg = dict(max_epochs=2)\n"
        "custom_hooks = [*_base_.custom_hooks, "
        f"dict(type='mmkd_logit.SequentialTeacherHook', stages=[{later!r}])]\n"
    )
    chain = write_chain(dict(config=tiny.teacher), dict(config=str(config)))
    message = error_of(capsys, main, chain)
    assert message.startswith(f"{chain}, stage 2: the teacher's checkpoint gone/final.pth does not")
    assert not Path("work_dirs").exists()
    train(chain, "--train-teacher")
    assert Path("gone/final.pth").is_file()
    assert all(final.is_file() for final in finals(chain))


def test_rows_of_finished_stages_are_made_up_for(workplace, capsys):
    """A process may be killed between final.pth and its row; the weights stay as they are."""
    chain, _ = three()
    train(chain, "--results", "runs.jsonl")
    rows = read_lines(Path("runs.jsonl"))
    kept = [final.read_bytes() for final in finals(chain)]
    Path("runs.jsonl").write_text("".join(Path("runs.jsonl").read_text().splitlines(True)[::2]))
    said(capsys)
    train(chain, "--results", "runs.jsonl")
    texts = said(capsys)
    assert texts[1].endswith("runs.jsonl has no results of it, tests it")
    assert texts[0] == f"finished before, {finals(chain)[0]}"
    assert texts[2] == f"finished before, {finals(chain)[2]}"
    *_, row = made_up = read_lines(Path("runs.jsonl"))
    assert len(made_up) == 3
    same = ("config", "weights", "teachers", "fingerprint", "test", "epochs", "iterations", "data")
    assert {key: row[key] for key in same} == {key: rows[1][key] for key in same}
    assert (row["resumed_at"], rows[1]["resumed_at"]) == (2, 0)
    assert [final.read_bytes() for final in finals(chain)] == kept

    # Without the checkpoint of the end, or with an earlier one, nothing is trained again.
    first, second, _ = stage_folders(chain)
    write_run(first, checkpoints=[])
    write_run(second, checkpoints=["epoch_0.pth"])
    checkpoint = load_from_file(str(second / "epoch_1.pth"))
    checkpoint["resume_state"]["finished"] = False  # which counts, and not its name
    torch.save(checkpoint, second / "epoch_0.pth")
    train(chain, "--results", "other.jsonl")
    texts = said(capsys)
    for text in texts[:2]:
        assert "other.jsonl has no results of it, and its last checkpoint to test is gone" in text
    assert [row["fingerprint"] for row in read_lines(Path("other.jsonl"))] == [
        rows[2]["fingerprint"]
    ]
    assert [final.read_bytes() for final in finals(chain)] == kept


def test_train_metrics_of_every_stage(workplace, capsys):
    chain, _ = three()
    train(chain, "--results", "runs.jsonl")
    train(chain, "--results", "runs.jsonl", "--train-metrics")
    rows = read_lines(Path("runs.jsonl"))
    assert [row["train"] is None for row in rows] == [True] * 3 + [False] * 3
    assert [row["weights"] for row in rows[:3]] == [row["weights"] for row in rows[3:]]


def test_a_config_without_our_hook_still_leaves_final_weights(workplace):
    tiny = Tiny()
    Path("tiny/bare.py").write_text(f"_base_ = './{Path(tiny.teacher).name}'\ncustom_hooks = []\n")
    other = "custom_hooks = [dict(type='mmkd_logit.FinalCheckpointHook', filename='mine.pth')]\n"
    Path("tiny/other.py").write_text(f"_base_ = './{Path(tiny.kd).name}'\n{other}")
    chain = write_chain(dict(config="tiny/bare.py"), dict(config="tiny/other.py"))
    train(chain)
    assert all(final.is_file() for final in finals(chain))
    assert (stage_folders(chain)[1] / "mine.pth").is_file()


def test_nothing_of_a_stage_stays_in_memory(workplace, monkeypatch):
    runners, alive = [], []

    @functools.wraps(Runner.__init__)
    def note(self, *args, **kwargs):
        alive.append(sum(runner() is not None for runner in runners))
        runners.append(weakref.ref(self))
        original(self, *args, **kwargs)

    original = Runner.__init__
    monkeypatch.setattr(Runner, "__init__", note)
    chain, _ = three()
    train(chain)
    assert alive == [0, 0, 0]
    gc.collect()
    assert [runner() for runner in runners] == [None] * 3


def test_stages_have_names_of_their_own(workplace):
    """Two stages of one config may start in the same second."""
    chain, _ = three()
    main([chain, "--cfg-options", "experiment_name=mine"])
    dumped = [next(folder.glob("*.py")) for folder in stage_folders(chain)]
    names = [Config.fromfile(file).experiment_name for file in dumped]
    assert names == ["mine_stage1", "mine_stage2", "mine_stage3"]


GOOD = "dict(config={!r})"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages = []", r"stages must be a list of dict\(config='PATH'\), got \[\]"),
        ("stages = dict(a=1)", r"stages must be a list of dict\(config='PATH'\), got \{'a': 1\}"),
        ("stages = 'PLAIN'", r"stages must be a list of .* got 'tiny/"),
        ("stages = ['PLAIN']", r"stage 1 must be dict\(config='PATH'\), got 'tiny/"),
        ("stages = [dict(overrides=[])]", r"stage 1 must be dict\(config='PATH'\), got \{'over"),
        ("stages = [dict(config=3)]", r"stage 1 must be dict\(config='PATH'\), got \{'config': 3"),
        ("stages = [A, dict(config='KD', tau=3)]", r"stage 2 takes config and .* also \['tau'\]"),
        ("stages = [A, dict(config='no.py')]", r"stage 2: the config no.py does not exist"),
        ("stages = [A, A]", r"stage 2: tiny/\w+.py must be a distilling config with one teacher"),
        ("stages = [A, E]", r"stage 2: tiny/e.py must be a distilling config with one teacher"),
        ("stages = [A, N]", r"stage 2: tiny/n.py must be a distilling config with one teacher"),
        ("stages = [A, dict(config='CHAIN')]", r"stage 2: tiny/\w+.py is a chain of runs; name"),
        ("stages = [A]\ntau = 3", r"a chain has randomness, stages, work_dir, got also tau; set"),
        ("stages = [A]\nmodel = dict(type='x')", r"a chain has .* got also model"),
        ("stages = [A]\nrandomness = 3", r"randomness of a chain must be dict\(seed=N\), got 3"),
        (
            "stages = [A]\nrandomness = dict(seed=1, deterministic=True)",
            r"randomness of a chain must be dict\(seed=N\), got \{",
        ),
        ("stages = [A]\nrandomness = dict(seed='x')", r"the seed must be an integer .* got 'x'"),
        ("stages = [A]\nwork_dir = 3", r"work_dir must be text, got 3"),
        ("stages = [O('a')]", r"stage 1, overrides: 'a' is not KEY=VALUE"),
        ("stages = [O('x=[1,(2]')]", r"stage 1, overrides: 'x=\[1,\(2\]': "),
        ("stages = [A, D('train_cfg.max_epochs=x')]", r"stage 2: .*max_epochs must be .* got 'x'"),
        (
            'stages = [A, D(\'custom_hooks=[{"type":"mmkd_logit.FinalCheckpointHook","x":1}]\')]',
            r"stage 2: custom_hooks.0 has no setting 'x'",
        ),
        ("stages = [dict(config='PLAIN', overrides='a=1')]", r"overrides must be a list of 'KEY"),
        ("stages = [dict(config='PLAIN', overrides=[3])]", r"overrides must be a list of .* \[3\]"),
        ("stages = [dict(config='PLAIN', overrides={'a': 1})]", r"overrides must be a list of"),
        ("stages = [O('modle.x=1')]", r"stage 1: .*modle.x: .* did you mean model\?"),
        ("stages = [O('model.alpha=1')]", r"stage 1: model has no setting 'alpha'"),
        ("stages = [A, D('model.alpha=2')]", r"stage 2: .* cannot be built: .*alpha must be .* 2"),
        (
            "stages = [A, D('model.loss_kd.type=Nope')]",
            r"stage 2: model.loss_kd.type: no model 'Nope'",
        ),
        (
            "stages = [A, D('model.student.head.num_classes=9')]",
            r"stage 2: its student has 9 classes, that of the stage before 10",
        ),
        ("stages = [A, D('train_cfg=5')]", r"stage 2: train_cfg must be a dict of settings, got 5"),
        (
            "stages = [A, D('val_dataloader=None')]",
            r"stage 2: .* val_dataloader, val_cfg, val_evaluator; val_dataloader is missing",
        ),
        (
            "stages = [A, D('train_cfg=None')]",
            r"stage 2: .* train_dataloader, train_cfg, optim_wrapper; train_cfg is missing",
        ),
    ],
)
def test_wrong_chains_are_one_line_before_anything_trains(workplace, capsys, text, message):
    tiny = Tiny()
    for name, teacher in (
        ("e", "[_base_.model.teacher, _base_.model.teacher]"),
        ("n", "'resnet18_8xb32_in1k'"),
    ):
        Path(f"tiny/{name}.py").write_text(
            f"_base_ = './{Path(tiny.kd).name}'\nmodel = dict(teacher={teacher})\n"
            if name == "e"
            else f"_base_ = './{Path(tiny.student).name}'\nmodel = dict(_delete_=True, "
            "type='mmkd_logit.LogitDistiller', student={{_base_.model}}, "
            f"teacher={teacher}, loss_kd=dict(type='mmkd_logit.LogitMSELoss'))\n"
        )
    chain = write_chain(dict(config=tiny.teacher))
    for name, value in (
        ("[A", f"[dict(config={tiny.teacher!r})"),
        (" A]", f" dict(config={tiny.teacher!r})]"),
        (" E]", " dict(config='tiny/e.py')]"),
        (" N]", " dict(config='tiny/n.py')]"),
        ("O(", f"(lambda x: dict(config={tiny.teacher!r}, overrides=[x]))("),
        ("D(", f"(lambda x: dict(config={tiny.kd!r}, overrides=[x]))("),
        ("PLAIN", tiny.teacher),
        ("'KD'", repr(tiny.kd)),
        ("CHAIN", chain),
    ):
        text = text.replace(name, value)
    Path("tiny/wrong.py").write_text(text)
    found = error_of(capsys, main, "tiny/wrong.py")
    assert re.search(message, found), found
    assert found.startswith(("tiny/wrong.py", "the seed"))
    assert not Path("work_dirs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume", "x.pth"], r"a chain finds its own checkpoints; leave out --resume x.pth"),
        (["--seed", "-1"], r"stage 1: the seed must be an integer .* got -1"),
        (["--epochs", "0"], r"stage 1: --epochs must be at least 1, got 0"),
        (["--amp"], r"stage 1: --amp needs a GPU"),
        (["--cfg-options", "model.teacher.checkpoint=x"], r"a chain's teachers are its students"),
        (["--cfg-options", "nonsense=1"], r"stage 1: .*a config has no field 'nonsense'"),
        (["--cfg-options", "model.alpha=0.5"], r"stage 1: model has no setting 'alpha'"),
        (["--results", "tools"], r"stage 1: --results: tools is a folder; name a file in it"),
    ],
)
def test_flags_that_do_not_go_with_a_chain(workplace, capsys, monkeypatch, words, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    chain, _ = three()
    found = error_of(capsys, main, chain, *words)
    assert re.search(message, found), found
    assert not Path("work_dirs").exists()


def test_what_is_a_chain(workplace):
    chain, _ = three()
    inherited = Path("tiny/inherited.py")
    inherited.write_text(f"_base_ = './{Path(chain).name}'\nwork_dir = 'elsewhere'\n")
    _folder = "a chain may have names of its own"
    own = write_chain(dict(config=STUDENT), more="_folder = 'configs'")
    for path in (chain, str(inherited), own):
        assert is_chain(path)
        assert read_chain(build_parser().parse_args([path]), build_config)
    sequential = sorted(PROJECT.glob("configs/sequential/*.py"))
    assert {path.stem for path in sequential if is_chain(str(path))} == {
        path.stem for path in sequential if path.stem.startswith("chain_")
    }
    for path in (STUDENT, KD, "configs/nope.py", "configs", "mmpretrain::x.py", "tools/train.py"):
        assert not is_chain(path), path


def test_testing_wants_the_config_of_a_stage(workplace, capsys):
    chain, _ = three()
    Path("x.pth").touch()
    message = error_of(capsys, test_tool.main, chain, "x.pth")
    assert message == f"{chain} is a chain of runs; name the config of one of its stages here"


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


@pytest.mark.parametrize(
    ("launcher", "variable"), [("slurm", "SLURM_NTASKS"), ("mpi", "OMPI_COMM_WORLD_SIZE")]
)
def test_processes_are_counted_before_they_have_met(project, monkeypatch, launcher, variable):
    cfg = Config.fromfile(STUDENT)
    cfg.launcher = launcher
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv(variable, "4")
    assert describe_run(cfg)["processes"] == 4
    cfg.launcher = "none"  # an interactive job of one process
    assert describe_run(cfg)["processes"] == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert describe_run(cfg)["processes"] == 2


def test_processes_meet_before_states_are_compared(monkeypatch):
    """With slurm on GPUs; what MMEngine's Runner would do later."""
    met = []
    monkeypatch.setattr(chain_run, "init_dist", lambda *a, **k: met.append((a, k)))
    monkeypatch.setattr(chain_run, "set_multi_processing", lambda **k: met.append(k))
    env_cfg = dict(mp_cfg=dict(mp_start_method="fork"), dist_cfg=dict(backend="nccl", timeout=9))
    chain_run.start_processes(Config(dict(launcher="slurm", env_cfg=env_cfg)))
    assert met == [
        dict(mp_start_method="fork", distributed=True),
        (("slurm",), dict(backend="nccl", timeout=9)),
    ]
    chain_run.start_processes(Config(dict(launcher="none", env_cfg=env_cfg)))
    assert len(met) == 2


def test_a_chain_killed_in_its_second_stage_goes_on_there(workplace):
    chain, stages = long_chain(epochs=8)
    train(chain, "--work-dir", "whole")
    words = [sys.executable, "tools/train.py", chain, "--results", "runs.jsonl"]
    path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    with open("killed.log", "w") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        second = folder_of(chain) / f"2_{Path(stages[1]['config']).stem}"
        end = time.monotonic() + 300
        while not (second / "last_checkpoint").is_file():
            assert process.poll() is None, Path("killed.log").read_text()[-3000:]
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (second / "final.pth").exists()
    assert len(stage_folders(chain)) == 2
    assert len(read_lines(Path("runs.jsonl"))) == 1
    first_written = finals(chain)[0].stat().st_mtime_ns

    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    texts = re.findall(r"^stage (\d) of 3, \w+: (.*)", done.stdout, re.MULTILINE)
    third = stage_folders(chain)[2]
    epoch = int(re.search(r"epoch_(\d+)\.pth", texts[1][1])[1])
    assert 1 <= epoch < 8
    assert texts == [
        ("1", f"finished before, {finals(chain)[0]}"),
        ("2", f"was cut off, goes on from {second}/epoch_{epoch}.pth"),
        ("3", f"starts in {third}"),
    ]
    assert finals(chain)[0].stat().st_mtime_ns == first_written
    logged = [log.split("Epoch(train)")[1:] for log in done.stdout.split("stage ")[2:4]]
    trained = [sorted({int(re.search(r"\[\s*(\d+)\]", line)[1]) for line in log}) for log in logged]
    assert trained == [list(range(epoch + 1, 9)), list(range(1, 9))]

    rows = read_lines(Path("runs.jsonl"))
    assert [Path(row["config"]).stem for row in rows] == [f.name[2:] for f in stage_folders(chain)]
    assert [row["weights"] for row in rows] == [weights_hash(final) for final in finals(chain)]
    assert [row["teachers"] for row in rows[1:]] == [[row["weights"]] for row in rows[:2]]
    assert [row["epochs"] for row in rows] == [8, 8, 8]
    per_epoch = rows[0]["iterations"] // 8
    assert [row["resumed_at"] for row in rows] == [0, epoch * per_epoch, 0]

    for final in finals(chain):
        whole = weights_of(Path("whole", final.parent.name, "final.pth"))
        ours = weights_of(final)
        assert ours.keys() == whole.keys()
        assert all(torch.equal(value, whole[key]) for key, value in ours.items()), final
