import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from commands import KD, PROJECT, STUDENT

from mmkd_logit.engine.config import teachers_of
from mmkd_logit.engine.fingerprint import describe_run, fingerprint_of
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.lab.experiment import Experiment, Run, RunEntry
from mmkd_logit.lab.reproduce import main as reproduce

TEACHER = "configs/wrn/wrn16-2_digits.py"


def write(tmp_path, text):
    file = tmp_path / "table9.py"
    file.write_text(text)
    return file


def rows(tmp_path, **overrides):
    return Experiment(
        write(
            tmp_path,
            "title = 'T'\n"
            f"runs = dict(big=dict(row='B', config={TEACHER!r}),\n"
            f"  small=dict(row='S', config={KD!r}, teacher='big',\n"
            "             overrides=['model.alpha=0.9']))\n"
            "comparisons = [('small', 'big')]\n",
        ),
        **overrides,
    )


PAPER = [
    *("grid", "table1", "table2", "sequential", "noisy-teacher", "noisy-label"),
    *("ensemble", "born-again", "data-amount", "calibration"),
]


def test_the_experiment_of_the_docs(tmp_path, capsys, monkeypatch):
    """It is read and planned as the page says, and the page has every field."""
    page = (PROJECT / "docs/experiments-and-report.md").read_text()
    (text,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    mine = Experiment(write(tmp_path, text))
    names = ["ce", "kl-t3_a0.5", "kl-t3_a0.9", "mse_a0.5", "mse_a0.9"]
    assert list(mine.cells) == [*names, "theirs"]
    assert mine.cells["mse_a0.9"] == ("MSE", "alpha 0.9")
    assert (mine.seeds, len(mine.metrics), mine.fixed_teachers) == (3, 2, {0})
    first, second = (mine.runs([seed]) for seed in (0, 1))
    assert [run.name for run in first] == ["big", *names]
    assert first[0] == second[0]
    for run in first[2:]:
        assert run.build_config().model.alpha == float(run.name[-3:])
    for field in fields(RunEntry):
        assert f"`{field.name}`" in page, f"describe {field.name} in docs/experiments-and-report.md"
    reproduce(["table9.py", "--dry-run"])
    assert "16 runs" in capsys.readouterr().out  # the teacher, and five for each of three seeds


def test_every_experiment_of_the_paper_is_there(project):
    folder = Path("configs/paper")
    needs_imagenet = ["imagenet", "noisy-teacher-in1k"]
    assert sorted(path.stem for path in folder.glob("*.py")) == sorted(
        [*PAPER, *needs_imagenet, "digits"]
    )
    assert sorted(path.stem for path in folder.glob("digits/*.py")) == sorted(PAPER)
    campaign = ["data-amount", "grid", "noisy-label", "noisy-teacher", "sequential", "table1"]
    assert sorted(path.stem for path in folder.glob("cpu/*.py")) == campaign


@pytest.mark.parametrize(
    "path", sorted(PROJECT.glob("configs/paper/**/*.py")), ids=lambda path: str(path)[-30:]
)
def test_the_projects_experiments(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = Experiment(path, epochs=4).runs([1])
    for run in runs:
        cfg = run.build_config()
        assert cfg.randomness.seed == run.seed
        assert cfg.work_dir == run.work_dir
        assert cfg.train_cfg.max_epochs == run.epochs
    assert max(run.epochs for run in runs) == 4


def test_fast_runs_are_apart_and_their_teachers_fast(project):
    for name in ("table1", "sequential", "ensemble"):
        path = PROJECT / "configs" / "paper" / "digits" / f"{name}.py"
        exact, fast = (Experiment(path, fast=fast).runs([0]) for fast in (False, True))
        assert not {run.work_dir for run in exact} & {run.work_dir for run in fast}
        for plain, run in zip(exact, fast, strict=True):
            assert "--fast" in run.argv
            assert "--fast" not in plain.argv
            assert [teacher.name for teacher in run.teachers] == [t.name for t in plain.teachers]
            assert all(teacher.fast for teacher in run.teachers)
            cfg = run.build_config()
            assert cfg.optim_wrapper.type == "mmkd_logit.AutocastOptimWrapper"
            named = {str(teacher.checkpoint) for teacher in teachers_of(cfg).values()}
            assert named == {f"{teacher.work_dir}/final.pth" for teacher in run.teachers}


def test_the_grid_is_whole(project):
    experiment = Experiment("configs/paper/grid.py")
    rows, columns = (dict.fromkeys(place[i] for place in experiment.cells.values()) for i in (0, 1))
    assert list(columns) == [f"alpha {i / 10}" for i in range(1, 11)]
    assert [row.partition("tau ")[2] for row in rows] == ["1", "3", "5", "20", "inf"] * 2
    assert len(experiment.cells) == 100
    assert [metric["key"] for metric in experiment.metrics] == [
        "test.accuracy/top1",
        "train.accuracy/top1",
    ]
    assert [len(metric["paper"]) for metric in experiment.metrics] == [40, 40]
    assert experiment.metrics[1]["paper"]["wrn28_4_a1.0_t20"] == (92.76, "S")
    for name, run in ((run.name, run) for run in experiment.runs([0])):
        if "_a" in name:
            model = run.build_config().model
            _, alpha, tau = name.rsplit("_", 2)
            assert (model.alpha, float(model.loss_kd.tau)) == (float(alpha[1:]), float(tau[1:]))


def test_one_teacher_for_all_seeds(project):
    experiment = Experiment("configs/paper/cpu/table1.py")
    assert (experiment.seeds, experiment.fast, experiment.dump_logits) == (
        3,
        True,
        ("train", "test"),
    )
    assert experiment.fixed_teachers == {0}
    runs = experiment.runs([0, 1, 2])
    teachers = {run for run in runs if run.name == "teacher"}
    assert [(run.seed, run.fast) for run in teachers] == [(0, True)]
    students = [run for run in runs if run.teachers]
    assert {run.teachers for run in students} == {tuple(teachers)}
    assert len({run.work_dir for run in students}) == 3 * 6
    for run in students:
        cfg = run.build_config()
        assert cfg.randomness.seed == run.seed == run.cell_seed
        assert cfg.model.teacher.checkpoint == "work_dirs/wrn28-4-half_fast/seed0/final.pth"
    assert Experiment("configs/paper/table1.py").fixed_teachers == set()


def test_a_seed_and_a_shift_of_it(tmp_path, project):
    text = f"title = 'T'\nruns = dict(a=dict(row='A', config={TEACHER!r}, seed=0, seed_shift=1))\n"
    with pytest.raises(ValueError, match="a has a seed of its own; leave out seed_shift"):
        Experiment(write(tmp_path, text))


def test_later_teachers_and_scores(project):
    runs = {run.name: run for run in Experiment("configs/paper/sequential.py").runs([3])}
    hook = runs["switch_both"].build_config().custom_hooks[-1]
    assert hook.stages[0].teacher.checkpoint == "work_dirs/wrn16-4/seed3/final.pth"
    assert runs["medium"] in runs["switch_both"].needs
    runs = {run.name: run for run in Experiment("configs/paper/data-amount.py").runs([3])}
    dataset = runs["ce_tld_u"].build_config().train_dataloader.dataset
    assert dataset.scores == "work_dirs/wrn28-4/seed3/logits/train.npz"
    assert (dataset.by, tuple(dataset.quantiles)) == ("tld", (0.5, 1.0))
    assert runs["ce_tld_u"].needs == (runs["teacher"],)


def test_runs_and_their_teachers(project, tmp_path):
    experiment = rows(tmp_path, options=("train_cfg.max_epochs=2",))
    assert (experiment.name, experiment.title) == ("table9", "T")
    assert experiment.cells == dict(big=("B", ""), small=("S", ""))
    assert experiment.comparisons == [("small", "big")]
    runs = experiment.runs([0, 3])
    assert [(run.name, run.seed) for run in runs] == [
        *[("big", 0), ("small", 0), ("big", 3), ("small", 3)]
    ]
    teacher, student = runs[2:]
    stem = Path(TEACHER).stem
    assert teacher.work_dir == f"work_dirs/{stem}_train_cfg.max_epochs=2/seed3"
    assert student.overrides == ("train_cfg.max_epochs=2", "model.alpha=0.9")
    assert student.inputs == (f"model.teacher.checkpoint={teacher.work_dir}/final.pth",)
    cfg = build_config(build_parser().parse_args(student.argv))
    assert cfg.model.alpha == 0.9
    assert cfg.train_cfg.max_epochs == 2
    assert cfg.randomness.seed == 3
    assert cfg.work_dir == student.work_dir
    assert cfg.model.teacher.checkpoint == f"{teacher.work_dir}/final.pth"


def test_work_folders_survive_the_command_line(project):
    """They become part of an override themselves, where a comma would make a list."""
    folders = set()
    for overrides in (
        ("param_scheduler.milestones=[15,24]",),
        ("param_scheduler.milestones=[15, 24]",),
        ("x=/a b/c",),
        ("x=../../c",),
        ("a=" + "x" * 300,),
        ("a=" + "x" * 301,),
        ("a=ä",),
        (),
    ):
        folder = Run("r", STUDENT, overrides, 0).work_dir
        folders.add(folder)
        assert re.fullmatch(r"work_dirs/[\w.=+-]{1,200}/seed0", folder)
        words = [KD, "--cfg-options", f"model.teacher.checkpoint={folder}/final.pth"]
        cfg = build_config(build_parser().parse_args(words))
        assert cfg.model.teacher.checkpoint == f"{folder}/final.pth"
    assert len(folders) == 8
    run = Run("r", STUDENT, (), 0)
    assert replace(run, inputs=("model.teacher.config=x.py",)).work_dir == run.work_dir


def test_the_origin_changes_with_what_is_computed_only(project, tmp_path):
    def origin(**kwargs):
        return describe_run(replace(run, **kwargs).build_config())

    run = Run("r", KD, (), 0)
    before = origin()
    assert before["fingerprint"] == fingerprint_of(
        build_config(build_parser().parse_args([KD, "--work-dir", str(tmp_path)]))
    )
    assert origin(name="other") == before
    assert origin(seed=1) != before
    assert origin(overrides=("model.alpha=0.5",)) != before
    teacher = tmp_path / "teacher.pth"
    origins = []
    for content in ("one", "two"):
        teacher.write_text(content)
        origins.append(origin(overrides=(f"model.teacher.checkpoint={teacher}",)))
    assert origins[0]["fingerprint"] != origins[1]["fingerprint"]


GOOD = "title = 'T'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs = dict()\n", "defines no title or no runs"),
        (GOOD, "defines no title or no runs"),
        (GOOD + "runs = ['x.py']\n", "defines no title or no runs"),
        (GOOD + "runs = dict(a='x.py')\n", r"the run a must be a dict such as .*, got 'x.py'"),
        (
            GOOD + "runs = dict(a=dict(row='A'))\n",
            r"the run a must be a dict such as dict\(config=...\) with some",
        ),
        (
            GOOD + "runs = dict(a=dict(config='c.py', label=3))\n",
            r"\['column', 'config', .*\], got \{'config': 'c.py', 'label': 3\}",
        ),
        (
            GOOD + "runs = dict(a=dict(row='A', config='c'), b=dict(row='A', config='c'))\n",
            "two runs fill the same cell",
        ),
        (
            GOOD + "runs = dict(a=dict(row='A', config='c'))\n"
            "metrics = [dict(title='t', key='test.x', mark='S', paper=dict(b=1))]\n",
            r"the paper's numbers name no run: \['b'\]",
        ),
        (
            GOOD + "runs = dict(a=dict(row='A', config='c', teacher='b'), "
            "b=dict(row='B', config='c'))\n",
            "the teacher 'b' of a must come first",
        ),
        (
            GOOD + "runs = dict(a=dict(row='A', config='c'))\ncomparisons = [('a', 'b')]\n",
            r"comparisons are pairs of \['a'\]",
        ),
        (
            GOOD + "runs = dict(a=dict(row='A', config='c'))\ncomparisons = [('a',)]\n",
            r"comparisons are pairs of \['a'\]",
        ),
    ],
)
def test_wrong_experiments_are_known_at_once(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        Experiment(write(tmp_path, text))


def test_students_of_different_teachers_have_different_folders(project, tmp_path):
    text = (
        GOOD
        + f"""
runs = dict(
    usual=dict(config={TEACHER!r}),
    short=dict(config={TEACHER!r}, overrides=['optim_wrapper.optimizer.lr=0.2']),
    other=dict(config={STUDENT!r}),
    second=dict(config={TEACHER!r}, seed_shift=1000),
    a=dict(row='A', config={KD!r}, teacher='usual'),
    b=dict(row='B', config={KD!r}, teacher='short'),
    c=dict(row='C', config={KD!r}, teacher='other'),
    d=dict(row='D', config={KD!r}, teacher='second'),
    e=dict(row='E', config={KD!r}, teacher=['usual', 'second']),
    f=dict(row='F', config={KD!r}, teacher='a'),
    g=dict(row='G', config={KD!r}, teacher='b'))
"""
    )
    runs = {run.name: run for run in Experiment(write(tmp_path, text)).runs([2])}
    assert len({run.work_dir for run in runs.values()}) == len(runs)
    stem = Path(KD).stem
    assert runs["a"].work_dir == f"work_dirs/{stem}/seed2"
    assert runs["c"].work_dir == f"work_dirs/{stem}_from-{Path(STUDENT).stem}2/seed2"
    assert runs["second"].seed == 1002
    assert runs["d"].seed == runs["d"].cell_seed == 2
    teacher = runs["c"].build_config().model.teacher
    assert teacher.config == STUDENT
    assert teacher.checkpoint == f"{runs['other'].work_dir}/final.pth"
    ensemble = runs["e"].build_config().model.teacher
    assert [(t.config, t.checkpoint) for t in ensemble] == [
        (TEACHER, f"{runs[name].work_dir}/final.pth") for name in ("usual", "second")
    ]


def test_epochs_in_proportion(project, tmp_path):
    text = (
        GOOD + f"runs = dict(a=dict(row='A', config={STUDENT!r}), "
        "b=dict(row='B', config='configs/wrn/wrn10-1.py'))\n"
    )
    a, b = Experiment(write(tmp_path, text), epochs=20).runs([0])
    assert (a.epochs, b.epochs) == (3, 20)  # of 30 and 200
    cfg = b.build_config()
    assert cfg.train_cfg.max_epochs == 20
    assert cfg.param_scheduler.milestones == [10, 15]
    assert a.work_dir == f"work_dirs/{Path(STUDENT).stem}_3e/seed0"


def test_epochs_in_proportion_to_those_that_overrides_say(project, tmp_path):
    longer = "overrides=['train_cfg.max_epochs=60']"
    text = (
        GOOD + f"runs = dict(a=dict(row='A', config={STUDENT!r}), "
        f"b=dict(row='B', config={STUDENT!r}, {longer}))\n"
    )
    a, b = Experiment(write(tmp_path, text), epochs=20).runs([0])
    assert (a.epochs, b.epochs) == (10, 20)  # of 30 and 60


def test_only_some_runs(project, tmp_path):
    text = (
        GOOD + f"runs = dict(big=dict(row='B', config={TEACHER!r}), "
        f"s=dict(row='S', config={STUDENT!r}), "
        f"kd=dict(row='K', config={KD!r}, teacher='big'))\ncomparisons = [('kd', 's')]\n"
    )
    experiment = Experiment(write(tmp_path, text), only=["k*"])
    assert [run.name for run in experiment.runs([0])] == ["big", "kd"]  # its teacher comes along
    assert list(experiment.cells) == ["kd"]
    assert experiment.comparisons == []
    assert Experiment(write(tmp_path, text), only=["x*"]).cells == {}


def test_an_ensemble_computes_as_its_config_says(workplace):
    options = "micro_batch=8, cache=dict(storage='memory', dtype='float16')"
    Path("fast.py").write_text(f"_base_ = './{KD}'\nmodel = dict(teacher=dict({options}))\n")
    Path("table.py").write_text(
        f"""title = 'T'
runs = dict(
    usual=dict(config={TEACHER!r}),
    second=dict(config={TEACHER!r}, seed_shift=1000),
    other=dict(config={STUDENT!r}),
    one=dict(row='A', config='fast.py', teacher='other'),
    two=dict(row='B', config='fast.py', teacher=['usual', 'second']))
"""
    )
    runs = {run.name: run for run in Experiment("table.py").runs([2])}
    one, two = (runs[name].build_config().model.teacher for name in ("one", "two"))
    assert (one.config, one.micro_batch, one.cache.dtype) == (STUDENT, 8, "float16")
    assert [t.checkpoint for t in two] == [
        f"{runs[name].work_dir}/final.pth" for name in ("usual", "second")
    ]
    assert [(t.micro_batch, t.cache.dtype) for t in two] == [(8, "float16")] * 2


def test_a_chosen_teacher_is_shown(project, tmp_path):
    text = (
        GOOD + f"runs = dict(big=dict(config={TEACHER!r}), s=dict(row='S', config={STUDENT!r}))\n"
    )
    assert Experiment(write(tmp_path, text), only=["big"]).cells == dict(big=("big", ""))


def test_where_the_data_lies_is_not_in_names(project, tmp_path):
    options = ("data_root=/data/x", "model.teacher.checkpoint=/x.pth")
    _, student = rows(tmp_path, options=options[:1]).runs([0])
    assert student.work_dir == rows(tmp_path).runs([0])[1].work_dir
    text = GOOD + f"runs = dict(a=dict(row='A', config={KD!r}))\n"
    (mine,) = Experiment(write(tmp_path, text), options=options).runs([0])
    (usual,) = Experiment(write(tmp_path, text)).runs([0])
    assert mine.work_dir != usual.work_dir  # another teacher, another folder


def test_what_a_run_sets_is_not_set_for_all(project, tmp_path):
    """One of the two would hold, and the table would state the other."""
    with pytest.raises(ValueError, match=r"model.alpha=0.5: .* sets that itself for small"):
        rows(tmp_path, options=("model.alpha=0.5",)).runs([0])
