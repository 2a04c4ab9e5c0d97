"""Every command line, given files of somebody who wants to run code here."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import Tiny, folder_of, make_workplace
from commands import test as run_test
from commands import train as run_train
from payloads import (
    as_checkpoint,
    as_legacy_checkpoint,
    as_npy,
    as_npz,
    as_pickle,
    as_program,
    read_checkpoint,
    read_numpy,
    read_pickle,
    read_program,
)
from traces import no_trace

from mmkd_logit.engine import group
from mmkd_logit.engine.fingerprint import read_run
from mmkd_logit.engine.logits import read_identity
from mmkd_logit.engine.precompute import main as precompute
from mmkd_logit.engine.results import read_lines
from mmkd_logit.lab.report.command import main as report
from mmkd_logit.lab.report.data import read_dump, read_dump_identity, read_scalars

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")

_NOISY = """
_base_ = './{student}'
train_dataloader = dict(
    dataset=dict(
        _delete_=True, dataset={{{{_base_.train_dataloader.dataset}}}}, num_classes=10,
        type='mmkd_logit.NoisyLabelDataset', {noise}))
"""
_SUBSET = """
_base_ = './{student}'
train_dataloader = dict(
    dataset=dict(
        _delete_=True, dataset={{{{_base_.train_dataloader.dataset}}}},
        type='mmkd_logit.DataSubset', scores='{file}', by='tld', quantiles=(0, 1)))
"""
_MEMORY = """
_base_ = './{kd}'
data_preprocessor = dict(type='mmkd_logit.BatchPreprocessor')
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        _delete_=True, type='mmkd_logit.InMemoryDataset',
        dataset=dict(
            type='mmkd_logit.Digits', split='train', indices=64,
            pipeline=[dict(type='PackInputs')])),
    sampler=dict(
        _delete_=True, type='mmkd_logit.SeededSampler',
        sampler=dict(type='DefaultSampler', shuffle=True)),
    collate_fn=dict(type='mmkd_logit.batch_collate'))
model = dict(teacher=dict(micro_batch=8, cache=dict(storage='disk', root='{root}')))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a teacher was trained, and two runs together were cut off."""
    folder = tmp_path_factory.mktemp("attacked")
    make_workplace(folder)
    with no_trace(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny = Tiny()
        run_train(tiny.teacher)
        place = SimpleNamespace(folder=folder, tiny=tiny, teacher=folder_of(tiny.teacher))
        place.epoch = place.teacher / "epoch_1.pth"
        lines = [f"{config} --work-dir group/{i}\n" for i, config in enumerate((tiny.kd,) * 2)]
        Path("runs.txt").write_text("".join(lines))
        group.main(["runs.txt"])
        (place.group,) = Path("work_dirs", "group").iterdir()
        memory = _MEMORY.format(kd=Path(tiny.kd).name, root=folder / "caches")
        place.memory = tiny.kd.replace(".py", "_memory.py")
        Path(place.memory).write_text(memory)
        precompute([place.memory])
        (place.cache,) = (folder / "caches").iterdir()
    return place


@pytest.fixture
def place(trained, monkeypatch):
    monkeypatch.chdir(trained.folder)
    return trained


def outcome(capsys, run, *words):
    """Run a command line; return what it said and whether it failed."""
    capsys.readouterr()
    status = 0
    try:
        run(*words)
    except SystemExit as stopped:
        status = stopped.code
    said = capsys.readouterr()
    return said.out + said.err, status


def resume_automatically(place, file, tmp_path):
    shutil.copy(file, tmp_path / "epoch_1.pth")
    (tmp_path / "last_checkpoint").write_text("elsewhere/epoch_1.pth")
    run_train(place.tiny.student, "--resume", "--work-dir", tmp_path)


def resume_teacher(place, file, tmp_path):
    """A teacher was cut off, and goes on from the file."""
    folder = place.teacher
    content = {path: path.read_bytes() for path in folder.glob("*.pth")}
    try:
        shutil.copy(file, folder / "epoch_1.pth")
        (folder / "final.pth").unlink()
        run_train(place.tiny.kd, "--train-teacher", "--work-dir", tmp_path)
    finally:
        for path, before in content.items():
            path.write_bytes(before)


def resume_group(place, file, tmp_path):
    content = (place.group / "epoch_1.pth").read_bytes()
    try:
        shutil.copy(file, place.group / "epoch_1.pth")
        group.main(["runs.txt"])
    finally:
        (place.group / "epoch_1.pth").write_bytes(content)


def teach_several(place, file, tmp_path):
    options = f"--cfg-options model.teacher.checkpoint={file}"
    lines = [f"{place.tiny.kd} --work-dir {tmp_path}/{i} {options}\n" for i in range(2)]
    (tmp_path / "runs.txt").write_text("".join(lines))
    group.main([str(tmp_path / "runs.txt")])


def teach_later(place, file, tmp_path):
    teacher = dict(config=place.tiny.teacher, checkpoint=str(file))
    hook = dict(type="mmkd_logit.SequentialTeacherHook", stages=[dict(begin=1, teacher=teacher)])
    options = dict(custom_hooks=[hook], train_cfg__max_epochs=2)
    run_train(place.tiny.kd, "--work-dir", tmp_path, **options)


def train_with(options, config="student"):
    def run(place, file, tmp_path):
        run_train(getattr(place.tiny, config), "--work-dir", tmp_path, **options(str(file)))

    return run


def pretrained(file, **more):
    return dict(type="Pretrained", checkpoint=file, **more)


CHECKPOINTS = {
    "resume": lambda place, file, tmp_path: run_train(
        place.tiny.student, "--resume", file, "--work-dir", tmp_path
    ),
    "automatic resume": resume_automatically,
    "resume of a teacher": resume_teacher,
    "resume of several": resume_group,
    "resume of a config": train_with(lambda file: dict(load_from=file, resume=True)),
    "load_from": train_with(lambda file: dict(load_from=file)),
    "teacher": train_with(lambda file: dict(model__teacher__checkpoint=file), "kd"),
    "teacher of several": teach_several,
    "later teacher": teach_later,
    "init_cfg": train_with(lambda file: dict(model__init_cfg=pretrained(file))),
    "init_cfg of a part": train_with(
        lambda file: dict(model__backbone__init_cfg=pretrained(file, prefix="backbone."))
    ),
    "test": lambda place, file, tmp_path: run_test(
        place.tiny.student, file, "--work-dir", tmp_path
    ),
    "precompute": lambda place, file, tmp_path: precompute(
        [place.memory, "--cfg-options", f"model.teacher.checkpoint={file}"]
    ),
}


@pytest.mark.parametrize("way", CHECKPOINTS)
def test_pickles_in_checkpoints(place, tmp_path, marker, capsys, way):
    file = tmp_path / "evil.pth"
    write = as_legacy_checkpoint if way == "load_from" else as_checkpoint
    write(file, marker)
    said, status = outcome(capsys, CHECKPOINTS[way], place, file, tmp_path)
    assert status == 1
    assert "is refused: it is damaged, or it holds more than weights and could run code" in said


@pytest.mark.parametrize("way", CHECKPOINTS)
def test_programs_in_checkpoints(place, tmp_path, marker, capsys, way):
    """Weights are sound, and meta['config'] is a program: it is used, and the program is not."""
    file = tmp_path / "evil.pth"
    source = place.group / "epoch_1.pth" if way == "resume of several" else place.epoch
    content = torch.load(source, weights_only=False)
    content["meta"]["config"] = as_program(marker)
    torch.save(content, file)
    said, status = outcome(capsys, CHECKPOINTS[way], place, file, tmp_path)
    assert status == 0, said
    assert "resume" not in way or "goes on from" in said or "Load checkpoint from" in said


def test_control_checkpoints_run_code_elsewhere(tmp_path):
    for number, write in enumerate((as_checkpoint, as_legacy_checkpoint)):
        write(tmp_path / "evil.pth", tmp_path / str(number))
        read_checkpoint(tmp_path / "evil.pth")
        assert (tmp_path / str(number)).exists()
    read_program(as_program(tmp_path / "program"))  # as Runner.resume does
    assert (tmp_path / "program").exists()


# Files of other kinds: how each is written, a careless reader, what reads it here, what that says.


def train_config(text):
    def run(place, file, tmp_path):
        config = Path(place.tiny.student.replace(".py", "_data.py"))
        config.write_text(text.format(student=Path(place.tiny.student).name, file=file))
        run_train(str(config), "--work-dir", tmp_path)

    return run


def with_noise(noise):
    return train_config(_NOISY.replace("{noise}", noise))


LABELS = with_noise("kind='file', file='{file}'")
MATRIX = with_noise("kind='transition', matrix='{file}'")


def in_cache(name):
    """Put the file into a teacher's cache under a name there."""

    def run(place, file, tmp_path):
        target = place.cache / name
        content = target.read_bytes()
        try:
            shutil.copy(file, target)
            run_train(place.memory, "--work-dir", tmp_path)
        finally:
            target.write_bytes(content)

    return run


def in_results(place, file, tmp_path):
    run_train(place.tiny.student, "--results", file, "--work-dir", tmp_path)


def in_experiments(place, file, tmp_path):
    (tmp_path / "results").mkdir()
    shutil.copy(file, tmp_path / "results" / "table1.json")
    report([str(tmp_path / "results")])


def in_cifar(place, file, tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test", "meta"):
        shutil.copy(file, folder / name)
    dataset = dict(type="CIFAR100", data_root=str(tmp_path), download=False)
    dataset["pipeline"] = [dict(type="PackInputs")]
    run_train(
        place.tiny.student, "--work-dir", tmp_path, train_dataloader__dataset__dataset=dataset
    )


def as_logits(path, marker):
    as_npz(path, marker, "logits")


REFUSED = "is refused: it is damaged, or it holds more than arrays of numbers"
FILES = {
    "labels.pt": (as_checkpoint, read_checkpoint, LABELS, REFUSED),
    "labels.pth": (as_legacy_checkpoint, read_checkpoint, LABELS, REFUSED),
    "labels.npy": (as_npy, read_numpy, LABELS, REFUSED),
    "labels.npz": (as_npz, read_numpy, LABELS, REFUSED),
    "a pickle.npy": (as_pickle, read_numpy, LABELS, REFUSED),
    "a pickle.npz": (as_pickle, read_numpy, LABELS, REFUSED),
    "matrix.npy": (as_npy, read_numpy, MATRIX, REFUSED),
    "logits.npz": (as_logits, read_numpy, train_config(_SUBSET), REFUSED),
    "meta.json": (as_pickle, read_pickle, in_cache("meta.json"), ""),
    "logits.bin": (as_pickle, read_pickle, in_cache("logits.bin"), ""),
    "checksums.bin": (as_pickle, read_pickle, in_cache("checksums.bin"), ""),
    "runs.jsonl": (as_pickle, read_pickle, in_results, "is not a results line"),
    "table1.json": (as_pickle, read_pickle, in_experiments, "is not whole JSON"),
    "runs.txt": (as_pickle, read_pickle, lambda p, file, t: group.main([str(file)]), "error"),
    "cifar": (as_pickle, read_pickle, in_cifar, "to have it downloaded again"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files(place, tmp_path, marker, capsys, name):
    write, _, run, message = FILES[name]
    file = tmp_path / name.partition(" of ")[0]
    write(file, marker)
    said, _ = outcome(capsys, run, place, file, tmp_path)
    assert message in said


@pytest.mark.parametrize("name", FILES)
def test_control_other_files_run_code_elsewhere(tmp_path, name):
    write, read, _, _ = FILES[name]
    file = tmp_path / name.partition(" of ")[0]
    write(file, tmp_path / "was executed")
    read(file)
    assert (tmp_path / "was executed").exists()


def test_dumps_rows_scalars_and_origins(tmp_path, marker):
    as_npz(tmp_path / "dump.npz", marker, "identity", "index", "label", "clean_label", "logits")
    as_pickle(tmp_path / "pickle.npz", marker)
    for name in ("dump.npz", "pickle.npz"):
        with pytest.raises(ValueError, match=f"{name} is not a whole dump"):
            read_dump(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} is not a whole dump"):
            read_dump_identity(tmp_path / name)
        assert read_identity(tmp_path / name) is None
    as_pickle(tmp_path / "run.json", marker)
    assert read_run(tmp_path) == {}
    as_pickle(tmp_path / "rows.jsonl", marker)
    with open(tmp_path / "rows.jsonl", "ab") as file:
        file.write(b"\n")
    with pytest.raises(ValueError, match=r"rows.jsonl:1 is not a results line; remove it"):
        read_lines(tmp_path / "rows.jsonl")
    as_pickle(tmp_path / "scalars.json", marker)
    assert read_scalars([tmp_path / "scalars.json"]) == {}  # as a line that was cut off


def test_submitit_reads_nobody_elses_pickles(tmp_path, monkeypatch, marker):
    """A folder of results that already holds what a job may return."""
    submitit = pytest.importorskip("submitit")
    from mmkd_logit.lab import pools

    class Job(submitit.LocalJob):
        """Says that it has ended, as do those whose number somebody guessed."""

        def done(self, force_check=False):
            return True

        def exception(self):
            return self.result() if self.paths.result_pickle.exists() else None

    class Executor:
        def __init__(self, folder, cluster):
            self.folder = folder

        def update_parameters(self):
            pass

        def submit(self, *args):
            return Job(self.folder, "4711")

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    as_pickle(tmp_path / "4711_0_result.pkl", marker)
    pool = pools.ClusterPool("slurm", tmp_path, 1, {})
    pool.start("work_dirs/a", [], "train.py")
    assert pool.finished() == {"work_dirs/a": True}
    # The control: in the folder itself the file is read, and run.
    control = tmp_path / "control"
    control.mkdir()
    as_pickle(control / "4711_0_result.pkl", tmp_path / "was run")
    with pytest.raises(TypeError):
        Job(control, "4711").exception()
    assert (tmp_path / "was run").exists()


def test_a_strange_best_checkpoint_is_not_deleted(place, tmp_path):
    """MMEngine deletes the best checkpoint that a resumed one names, for a better one."""
    victim = tmp_path / "other" / "best_accuracy_top1_epoch_9.pth"
    for folder in ("other", "own"):
        (tmp_path / folder).mkdir()
    content = torch.load(place.epoch, weights_only=False)
    content["message_hub"]["runtime_info"].update(best_ckpt=str(victim), best_score=-1.0)
    torch.save(content, tmp_path / "evil.pth")
    victim.write_text("weights")
    options = dict(train_cfg__max_epochs=2, default_hooks__checkpoint__save_best="auto")
    words = ["--resume", tmp_path / "evil.pth", "--work-dir", tmp_path / "own"]
    run_train(place.tiny.student, *words, **options)
    assert list((tmp_path / "own").glob("best_*.pth"))
    assert victim.exists()
