"""Teachers that are trained first, and chains of them: configs whose teachers' configs distil."""

import functools
import json
import re
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from commands import Tiny, error_of, folder_of, make_workplace, taught_by, train
from mmengine.config import Config
from mmengine.runner import Runner

from mmkd_logit.engine.fingerprint import read_run, weights_hash, write_run
from mmkd_logit.engine.results import read_lines
from mmkd_logit.engine.train import build_config, build_parser, main, plan_runs

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")


class Chain:
    """A teacher, its student, and the student of that one, each trained by one command."""

    def __init__(self):
        self.tiny = Tiny()
        self.last = taught_by(self.tiny.kd, self.tiny.kd)
        self.configs = [self.tiny.teacher, self.tiny.kd, self.last]
        self.folders = [folder_of(config) for config in self.configs]
        self.finals = [folder / "final.pth" for folder in self.folders]

    def train(self, *words, **settings):
        train(self.last, "--train-teacher", "--results", "runs.jsonl", *words, **settings)

    def look(self, *words):
        """Look at the teachers; the last student is finished, and goes on at its end."""
        train(self.last, "--train-teacher", "--resume", *words)

    def change(self, number, line):
        with open(self.configs[number], "a") as file:
            file.write(f"{line}\n")

    @property
    def hashes(self):
        return [weights_hash(final) for final in self.finals]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    make_workplace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        chain = Chain()
        chain.train()
    return folder, chain


@pytest.fixture
def chain(trained, tmp_path, monkeypatch):
    """A copy of the trained chain, to be changed."""
    shutil.copytree(trained[0], tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return trained[1]


def said(capsys):
    """What was said of each teacher, by its folder."""
    lines = re.findall(r"^the teacher (\S+)/final.pth (.*)$", capsys.readouterr().out, re.MULTILINE)
    return {Path(folder): text for folder, text in lines}


def weights_of(path):
    return torch.load(path, weights_only=False)["state_dict"]


def assert_equal_weights(first, second):
    first, second = weights_of(first), weights_of(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_each_student_teaches_the_next(chain):
    rows = read_lines(Path("runs.jsonl"))
    assert [row["config"] for row in rows] == chain.configs
    assert [row["weights"] for row in rows] == chain.hashes
    assert [row["teachers"] for row in rows] == [[], chain.hashes[:1], chain.hashes[1:2]]
    assert [read_run(f)["teachers"] for f in chain.folders] == [row["teachers"] for row in rows]
    assert [row["command"][2] for row in rows] == [chain.last] * 3
    assert len(set(chain.hashes)) == 3


def test_each_run_is_what_it_is_alone(chain):
    """Nothing of a teacher's training but its weights reaches the student."""
    for config, final in zip(chain.configs[1:], chain.finals[1:], strict=True):
        train(config, "--work-dir", "alone")
        assert_equal_weights("alone/final.pth", final)


def test_what_is_there_is_not_trained_again(chain, capsys):
    before = [final.stat().st_mtime_ns for final in chain.finals]
    rows = read_lines(Path("runs.jsonl"))
    chain.train("--resume")
    first, second, _ = chain.folders
    assert said(capsys) == {first: "was trained before", second: "was trained before"}
    assert [final.stat().st_mtime_ns for final in chain.finals[:2]] == before[:2]
    assert [row["weights"] for row in read_lines(Path("runs.jsonl"))] == [
        *(row["weights"] for row in rows),
        rows[2]["weights"],  # tested once more
    ]


def test_another_teacher_is_refused_with_the_differences(chain, capsys):
    first, second, _ = chain.folders
    before = [final.read_bytes() for final in chain.finals]
    chain.change(0, "optim_wrapper = dict(optimizer=dict(lr=0.05))")
    message = error_of(capsys, main, chain.last, "--train-teacher")
    assert message == (
        f"{first}/final.pth is not the teacher that {chain.configs[0]} gives: "
        "optim_wrapper.optimizer.lr: 0.1 -> 0.05. Leave out --train-teacher to be taught by it "
        "all the same, or add --retrain to train it anew"
    )
    assert [final.read_bytes() for final in chain.finals] == before
    chain.train("--retrain")
    # The teacher's new weights make its student another one.
    assert said(capsys) == {first: "is trained anew", second: "is trained anew"}
    rows = read_lines(Path("runs.jsonl"))[3:]
    assert [row["weights"] for row in rows] == chain.hashes
    assert [row["teachers"] for row in rows[1:]] == [[row["weights"]] for row in rows[:2]]
    chain.look()
    assert set(said(capsys).values()) == {"was trained before"}
    # What a resumed run may differ in makes another teacher.
    chain.change(1, "train_cfg = dict(max_epochs=2)")
    message = error_of(capsys, main, chain.last, "--train-teacher")
    assert f"{second}/final.pth is not the teacher that" in message
    assert "gives: the number of epochs or processes differs" in message


def test_other_weights_are_another_teacher_of_the_next(chain, capsys):
    content = torch.load(chain.finals[0], weights_only=False)
    content["state_dict"]["head.fc.weight"] += 1
    torch.save(content, chain.finals[0])
    message = error_of(capsys, main, chain.last, "--train-teacher")
    assert f"{chain.finals[1]} is not the teacher" in message
    assert ": model.teacher.weights: " in message


def test_a_teacher_of_unknown_origin_is_taken(chain, capsys):
    first, second, _ = chain.folders
    for origin in (None, dict(fingerprint="of another tool")):
        (second / "run.json").unlink(missing_ok=True)
        if origin:
            write_run(second, **origin)
        chain.look()
        why = f"since nothing says what made {chain.finals[1]}"
        assert said(capsys)[second] == f"is taken as it is, {why}"
    chain.train("--retrain")
    assert said(capsys) == {first: "was trained before", second: "is trained anew"}


def test_the_teacher_of_a_teacher_may_be_gone(chain, capsys):
    """It is not trained for a student that is there; that student is compared all the same."""
    first, second, _ = chain.folders
    chain.finals[0].unlink()
    chain.look()
    assert said(capsys) == {second: "was trained before"}
    chain.change(1, "model['alpha'] = 0.5")
    message = error_of(capsys, main, chain.last, "--train-teacher")
    assert "gives: model.alpha: not set -> 0.5. Leave" in message
    chain.train("--retrain")
    assert said(capsys) == {first: "goes on", second: "is trained anew"}


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_teacher_that_was_cut_off_goes_on(chain, capsys, damage):
    first, second, _ = chain.folders
    hashes, row = chain.hashes, read_lines(Path("runs.jsonl"))[1]
    if damage == "missing":
        chain.finals[1].unlink()
    else:
        chain.finals[1].write_bytes(chain.finals[1].read_bytes()[:-100])
    chain.train()
    texts = said(capsys)
    assert texts[first] == "was trained before"
    assert texts[second].startswith("its final.pth is" if damage == "damaged" else "goes on")
    assert texts[second].endswith("goes on")
    assert chain.hashes == hashes
    _, _, _, again, last = read_lines(Path("runs.jsonl"))
    assert (again["weights"], again["resumed_at"]) == (row["weights"], 2)
    assert last["resumed_at"] == 0


def test_checkpoints_of_another_run_are_not_gone_on_from(chain, capsys):
    _, second, _ = chain.folders
    chain.finals[1].unlink()
    noted = read_run(second)
    write_run(second, computed=dict(noted["computed"], model="of before"))
    chain.train()
    assert said(capsys)[second] == "is trained first"
    assert read_lines(Path("runs.jsonl"))[3]["resumed_at"] == 0


def test_a_teacher_without_its_row_is_tested(chain, capsys):
    """A process may be killed between final.pth and its row; the weights stay as they are."""
    rows = read_lines(Path("runs.jsonl"))
    before = [final.read_bytes() for final in chain.finals]
    chain.train("--train-metrics")
    assert set(said(capsys).values()) == {"was trained before and is tested for runs.jsonl"}
    again = read_lines(Path("runs.jsonl"))[3:]
    same = ("config", "weights", "teachers", "fingerprint", "test", "epochs", "iterations", "data")
    for row, old in zip(again, rows, strict=True):
        assert {key: row[key] for key in same} == {key: old[key] for key in same}
        assert (old["train"], row["train"] is None) == (None, False)
    assert [row["resumed_at"] for row in again] == [2, 2, 0]
    assert [final.read_bytes() for final in chain.finals] == before

    # Without the checkpoint of the end nothing is trained again for it.
    first, second, _ = chain.folders
    write_run(first, checkpoints=[])
    content = torch.load(second / "epoch_1.pth", weights_only=False)
    content["resume_state"]["finished"] = False
    torch.save(content, second / "epoch_1.pth")
    train(chain.last, "--train-teacher", "--results", "other.jsonl")
    assert set(said(capsys).values()) == {"was trained before; its row in other.jsonl is missing"}
    assert [row["weights"] for row in read_lines(Path("other.jsonl"))] == [rows[2]["weights"]]
    assert [final.read_bytes() for final in chain.finals[:2]] == before[:2]


def test_flags_that_hold_for_teachers_too(project):
    words = ["--train-teacher", "--retrain", "--fast", "--no-pin-memory", "--results", "r.jsonl"]
    words += ["--train-metrics", "--seed", "3", "--epochs", "2", "--work-dir", "mine"]
    words += ["--cfg-options", "data_root=here", "model.alpha=0.5"]
    config = "configs/sequential/chain_wrn28-4_wrn16-4_wrn16-2_kl-t3_mse.py"
    args = build_parser().parse_args([config, *words])
    args.results = None
    args.train_metrics = False
    *teachers, last = plan_runs(args).values()
    assert [run.cfg.work_dir for run in teachers] == [
        "work_dirs/wrn28-4/seed0",
        "work_dirs/wrn28-4_wrn16-4_kl-t3/seed0",
    ]
    assert (last.cfg.work_dir, last.cfg.randomness.seed, last.cfg.model.alpha) == ("mine", 3, 0.5)
    for run in teachers:  # the folder names the seed, so that one teacher is for all seeds
        assert (run.cfg.randomness.seed, run.cfg.train_cfg.max_epochs) == (0, 200)
        assert (run.args.fast, run.args.retrain, run.args.no_pin_memory) == (True, True, True)
        assert run.cfg.optim_wrapper.type == "mmkd_logit.AutocastOptimWrapper"
        assert run.cfg.train_dataloader.dataset.dataset.data_root == "here"
    assert teachers[1].cfg.model.get("alpha") == 1.0


def test_a_teacher_without_our_hook_still_leaves_final_weights(workplace):
    tiny = Tiny()
    other = "[dict(type='mmkd_logit.FinalCheckpointHook', filename='mine.pth')]"
    with open(tiny.teacher, "a") as file:
        file.write(f"custom_hooks = {other}\n")
    train(tiny.kd, "--train-teacher")
    assert (folder_of(tiny.teacher) / "mine.pth").is_file()


def test_a_failure_of_a_teacher_leaves_what_goes_on(chain, capsys, monkeypatch):
    _, second, last = chain.folders

    def fail(self, *args, **kwargs):
        raise OSError("the disk is gone")

    for folder in (second, last):
        shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        patch.setattr("mmkd_logit.models.LogitDistiller.loss", fail)
        assert error_of(capsys, main, chain.last, "--train-teacher") == "the disk is gone"
    assert not chain.finals[1].exists()
    chain.train()
    assert said(capsys)[second] == "goes on"


def test_wrong_chains_are_one_line_before_anything_trains(workplace, capsys):
    tiny = Tiny()
    cases = {
        "model = dict(alpha=2)": "cannot be built: alpha must be a number in [0, 1], got 2",
        "model = dict(student=dict(head=dict(num_classes=9)))": (
            "cannot be built: its teacher has 10 classes and its student 9"
        ),
        "model = dict(loss_kd=dict(type='Nope'))": "model.loss_kd.type: no model 'Nope'",
    }
    for line, words in cases.items():
        wrong = Tiny().kd
        Path(wrong).write_text(f"_base_ = './{Path(tiny.kd).name}'\n{line}\n")
        for config in (wrong, taught_by(wrong, tiny.kd)):
            assert words in error_of(capsys, main, config, "--train-teacher")
    assert not Path("work_dirs").exists()
    assert error_of(capsys, main, tiny.kd, "--retrain") == "--retrain goes with --train-teacher"


def test_a_teacher_is_not_taught_by_its_student(workplace, capsys):
    first, second = Tiny(), Tiny()
    for one, other in ((first, second), (second, first)):
        text = Path(one.kd).read_text().replace(Path(one.teacher).stem, Path(other.kd).stem)
        Path(one.kd).write_text(text)
    words = "would be taught by its own student"
    for folder in (folder_of(first.kd), folder_of(second.kd)):  # that of its teacher
        message = error_of(capsys, main, first.kd, "--train-teacher", "--work-dir", folder)
        assert message.endswith(f"/final.pth {words}")


# Born-again distillation.


def born_again(tiny, generations=3):
    path = tiny.kd.replace("kd", "again")
    Path(path).write_text(f"_base_ = './{Path(tiny.kd).name}'\ngenerations = {generations}\n")
    return path


def test_generations_teach_each_other(workplace, capsys, monkeypatch):
    tiny, runners, alive = Tiny(), [], []

    @functools.wraps(Runner.__init__)
    def note(self, *args, **kwargs):
        alive.append(sum(runner() is not None for runner in runners))
        runners.append(weakref.ref(self))
        original(self, *args, **kwargs)

    original = Runner.__init__
    config, words = born_again(tiny), ["--train-teacher", "--results", "runs.jsonl", "--seed", 5]
    folder = folder_of(config, seed=5)
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "__init__", note)
        train(config, *words, model__alpha=0.9)
    assert alive == [0] * 4  # nothing of a run stays in memory
    folders = [folder / "generation1", folder / "generation2", folder]
    assert list(said(capsys)) == [folder_of(tiny.teacher), *folders[:2]]
    rows = read_lines(Path("runs.jsonl"))
    finals = [folder_of(tiny.teacher) / "final.pth", *(f / "final.pth" for f in folders)]
    hashes = [weights_hash(final) for final in finals]
    assert [row["weights"] for row in rows] == hashes
    assert [row["teachers"] for row in rows[1:]] == [[each] for each in hashes[:3]]
    assert [row["seed"] for row in rows] == [0, 5, 5, 5]
    assert [row["overrides"].get("model.alpha") for row in rows] == [None, 0.9, 0.9, 0.9]
    # By hand.
    teacher = dict(model__teacher__config=tiny.kd, model__teacher__checkpoint=finals[1])
    train(tiny.kd, "--seed", 5, "--work-dir", "alone", model__alpha=0.9, **teacher)
    assert_equal_weights("alone/final.pth", finals[2])
    origins = [json.loads(Path(f, "run.json").read_text()) for f in ("alone", folders[1])]
    assert origins[0]["fingerprint"] == origins[1]["fingerprint"]

    # One that was cut off goes on, and is still the same teacher.
    shutil.rmtree(folder / "generation2")
    (folder / "final.pth").unlink()
    message = error_of(capsys, main, config, "--seed", 5)
    command = f"--work-dir {folder}/generation2 --cfg-options generations=2"
    assert f"make it with: python tools/train.py {config} --seed 5 {command}" in message
    train(config, *words, "--resume", model__alpha=0.9)
    texts = said(capsys)
    assert texts.pop(folder / "generation2") == "is trained first"
    assert set(texts.values()) == {"was trained before"}
    assert [weights_hash(final) for final in finals] == hashes


def test_generations_need_one_teacher(workplace, capsys):
    tiny = Tiny()
    one = dict(config=tiny.teacher, checkpoint=None)
    for config, options, words in (
        (tiny.student, ["generations=2"], "needs a distilling config with one teacher"),
        (tiny.kd, [f"model.teacher={[one, one]}", "generations=2"], "with one teacher"),
        (tiny.kd, ["generations=0"], "generations must be an integer from 1 on, got 0"),
        (tiny.kd, ["generations=two"], "generations must be an integer from 1 on, got 'two'"),
    ):
        assert words in error_of(capsys, main, config, "--cfg-options", *options)
    args = build_parser().parse_args([tiny.kd, "--cfg-options", "generations=1"])
    teacher = build_config(args).model.teacher
    assert teacher == Config.fromfile(tiny.kd).model.teacher
