"""tools/score_samples.py, as its user meets it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import STUDENT, Tiny, error_of, folder_of, train
from mmengine.config import Config
from mmpretrain.structures import DataSample

from mmkd_logit.datasets import DataSubset, Digits
from mmkd_logit.engine.score import main, score_batch, write_scores
from mmkd_logit.models import FrozenTeacher

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")


def batch_of(labels, clean=None):
    samples = []
    for index, label in enumerate(labels):
        sample = DataSample().set_gt_label(label)
        sample.set_field(10 + index, "sample_idx", field_type="metainfo")
        if clean is not None:
            sample.set_field(clean[index], "clean_label", field_type="metainfo")
        samples.append(sample)
    return samples


def test_scores_by_hand():
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 0.0], [-torch.inf, 3.0, 3.0]]).double()
    scores = score_batch(logits, batch_of([0, 1, 1], clean=[0, 2, 1]))
    assert scores["index"].tolist() == [10, 11, 12]
    assert scores["label"].tolist() == [0, 1, 1]
    assert scores["clean_label"].tolist() == [0, 2, 1]
    assert scores["tld"] == pytest.approx([1.5, 0.0, 0.0])
    p = np.exp([2.0, 0.5, -1.0]) / np.exp([2.0, 0.5, -1.0]).sum()
    assert scores["entropy"] == pytest.approx([-(p * np.log(p)).sum(), np.log(3), np.log(2)])
    assert score_batch(logits, batch_of([0, 1, 1]))["clean_label"].tolist() == [0, 1, 1]
    # The label that is not the largest has a negative difference.
    assert score_batch(logits[:1], batch_of([2]))["tld"] == pytest.approx([-3.0])


def test_batches_that_cannot_be_scored():
    with pytest.raises(ValueError, match="labels up to 3 do not fit a network of 3 classes"):
        score_batch(torch.zeros(1, 3), batch_of([3]))
    for lacking in (DataSample(), DataSample().set_gt_label(1)):
        with pytest.raises(ValueError, match="a sample has no gt_label or no sample_idx"):
            score_batch(torch.zeros(1, 3), [lacking])


def test_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "scores.npz"
    write_scores(path, dict(index=np.arange(3)))
    assert np.load(path)["index"].tolist() == [0, 1, 2]

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_scores(path, dict(index=np.arange(9)))
    assert [file.name for file in path.parent.iterdir()] == ["scores.npz"]
    assert np.load(path)["index"].tolist() == [0, 1, 2]


@pytest.fixture
def teacher(workplace):
    tiny = Tiny()
    train(tiny.teacher)
    return tiny, folder_of(tiny.teacher) / "final.pth"


def test_from_teacher_to_subset(teacher, capsys):
    tiny, checkpoint = teacher
    main([tiny.teacher, str(checkpoint), "out/scores.npz"])
    line = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"out/scores.npz: 64 samples, entropy [\d.]+ on .*, [\d.]+% right", line)
    scores = dict(np.load("out/scores.npz"))
    assert scores["index"].tolist() == list(range(64))
    labels = Digits(indices=64).get_gt_labels()
    assert scores["label"].tolist() == scores["clean_label"].tolist() == labels.tolist()

    # Against the teacher itself, on the images as they are: training crops at random.
    cfg = Config.fromfile(tiny.teacher)
    network = FrozenTeacher(dict(config=tiny.teacher, checkpoint=str(checkpoint)))
    images = np.stack([item["img"] for item in Digits(indices=64)])
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    inputs = (inputs - cfg.data_preprocessor.mean[0]) / cfg.data_preprocessor.std[0]
    expected = score_batch(network(inputs).double(), batch_of(labels.tolist()))
    for name in ("entropy", "tld"):
        assert scores[name] == pytest.approx(expected[name], abs=1e-5)

    part = DataSubset(
        Digits(indices=64), scores="out/scores.npz", by="entropy", quantiles=(0, 0.25)
    )
    kept = [part.get_data_info(i)["sample_idx"] for i in range(len(part))]
    assert kept == sorted(np.argsort(scores["entropy"])[:16])


def test_noisy_labels_and_distilled_students(teacher):
    tiny, _ = teacher
    train(tiny.kd)
    checkpoint = str(folder_of(tiny.kd) / "final.pth")
    noisy = Path("tiny/noisy.py")
    noisy.write_text(
        f"_base_ = './{Path(tiny.kd).name}'\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='mmkd_logit.NoisyLabelDataset',"
        "kind='pair', rate=0.5, dataset={{_base_.train_dataloader.dataset}}))\n"
    )
    main([str(noisy), checkpoint, "noisy.npz"])
    main([tiny.student, checkpoint, "clean.npz"])
    scores, clean = dict(np.load("noisy.npz")), dict(np.load("clean.npz"))
    assert (scores["label"] != scores["clean_label"]).mean() == pytest.approx(0.5, abs=0.1)
    assert (scores["clean_label"] == clean["label"]).all()
    assert scores["entropy"] == pytest.approx(clean["entropy"])
    same = scores["label"] == clean["label"]
    assert scores["tld"][same] == pytest.approx(clean["tld"][same])
    assert (scores["tld"][~same] != clean["tld"][~same]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.pth", "s.npy"], r"s.npy must end in .npz"),
        (["x.pth", "s.npz"], r"the checkpoint x.pth does not exist"),
        (["tools/train.py", "s.npz"], r"tools/train.py is refused|cannot be read"),
        (["x.pth", "s.npz", "--launcher", "pytorch"], "one process; leave out --launcher"),
        (["x.pth", "s.npz", "--amp"], "full precision; leave out --amp"),
    ],
)
def test_wrong_words_are_one_line(workplace, capsys, words, message):
    assert re.search(message, error_of(capsys, main, STUDENT, *words))
    assert not Path("s.npz").exists()


def test_checkpoint_of_another_network(teacher, capsys):
    tiny, checkpoint = teacher
    config = "configs/wrn/wrn16-2_digits.py"
    assert "does not fit teacher" in error_of(capsys, main, config, checkpoint, "s.npz")
    Path("none.py").write_text(f"_base_ = './{tiny.teacher}'\ntest_dataloader = None\n")
    message = error_of(capsys, main, "none.py", checkpoint, "s.npz")
    assert message == "none.py has no test_dataloader with a dataset"


def test_a_replaced_sample_is_an_error(teacher, capsys, monkeypatch):
    """A data set for training puts another in the place of one that it cannot read."""
    tiny, checkpoint = teacher
    config = Path("tiny/from_disk.py")  # in memory nothing takes the place of another
    config.write_text(
        f"_base_ = './{Path(tiny.teacher).name}'\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='mmkd_logit.Digits',"
        "indices=64, pipeline=[dict(type='PackInputs')]))\n"
    )
    prepare = Digits.prepare_data
    monkeypatch.setattr(Digits, "prepare_data", lambda self, i: prepare(self, i) if i else None)
    message = error_of(capsys, main, config, checkpoint, "s.npz")
    assert message.startswith("a sample came twice")
