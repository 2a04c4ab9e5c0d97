"""tools/dump_logits.py and --dump-logits, as a user calls them."""

import json
import os
import re
from pathlib import Path

import commands
import numpy as np
import pytest
import torch
from commands import Tiny, error_of, folder_of, train
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from runs import digits_distiller, digits_student, run_config

from mmkd_logit.datasets import DataSubset, Digits
from mmkd_logit.engine import group
from mmkd_logit.engine.fingerprint import describe_run, weights_hash
from mmkd_logit.engine.logits import (
    export_logits,
    find_exports,
    loader_of,
    main,
    missing_exports,
    prepare_export,
    read_identity,
)
from mmkd_logit.engine.results import read_lines
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.lab.report.data import read_dump

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")


class Trained:
    """A tiny distilling run on noisy labels, which has dumped its logits."""

    def __init__(self, folder):
        os.chdir(folder)
        commands.make_workplace(folder)
        self.tiny = Tiny()
        self.config = commands.noisy(self.tiny.kd)
        words = ("--train-teacher", "--results", "rows.jsonl", "--dump-logits", "--seed", 2)
        train(self.config, *words)
        self.folder = folder_of(self.config, 2)
        self.final = str(self.folder / "final.pth")


def network_of(config, final):
    """Build a network without our tools."""
    cfg = Config.fromfile(config)
    init_default_scope("mmpretrain")
    model = MODELS.build({**cfg.model, "data_preprocessor": cfg.data_preprocessor})
    model.load_state_dict(torch.load(final, weights_only=False)["state_dict"])
    return model.eval()


def digits(split, images):
    dataset = Digits(split=split)
    return [dataset[i] for i in range(images)]


@torch.no_grad()
def forward(model, data):
    """Logits and pre-logits of digits as they are."""
    inputs = torch.stack([torch.as_tensor(item["img"]).permute(2, 0, 1) for item in data])
    features = model.extract_feat(model.data_preprocessor(dict(inputs=inputs))["inputs"])
    prelogits = model.head.pre_logits(features)
    return model.head.fc(prelogits).numpy(), prelogits.numpy()


@pytest.mark.parametrize(("split", "images"), [("train", 64), ("test", 100)])
def test_against_a_loop_of_our_own(trained, split, images):
    """Training crops at random and shuffles; a dump does neither."""
    dump = read_dump(trained.folder / "logits" / f"{split}.npz")
    data = digits(split, images)
    student = network_of(trained.tiny.student, trained.final)
    teacher = network_of(trained.tiny.teacher, folder_of(trained.tiny.teacher) / "final.pth")
    for network, begin in ((student, ""), (teacher, "teacher_")):
        logits, prelogits = forward(network, data)
        found = {
            name: getattr(dump, begin + name) for name in ("logits", "prelogits", "weight", "bias")
        }
        np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
        np.testing.assert_allclose(found["prelogits"], prelogits, atol=1e-5)
        np.testing.assert_array_equal(found["weight"], network.head.fc.weight.detach())
        np.testing.assert_array_equal(found["bias"], network.head.fc.bias.detach())
    assert np.abs(dump.logits - dump.teacher_logits).max() > 0.01
    assert dump.index.tolist() == list(range(images))
    assert dump.clean_label.tolist() == [item["gt_label"] for item in data]
    wrong = (dump.label != dump.clean_label).mean()
    assert wrong == (pytest.approx(0.5, abs=0.15) if split == "train" else 0)
    assert dump.classes.tolist() == list("0123456789")


@pytest.mark.parametrize("by", ["entropy", "tld"])
def test_data_subset_chooses_by_what_a_run_leaves(trained, by):
    """Of a distilling run these are the student's logits; its labels are the noisy ones."""
    file = trained.folder / "logits" / "train.npz"
    label, data = read_dump(file).label, digits("train", 64)
    logits = forward(network_of(trained.tiny.student, trained.final), data)[0].astype(float)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = np.arange(10) == label[:, None]
    tld = logits[own] - np.where(own, -np.inf, logits).max(1)
    order = np.argsort(dict(entropy=-(p * np.log(p)).sum(1), tld=tld)[by])
    part = DataSubset(Digits(indices=64), scores=str(file), by=by, quantiles=(0.25, 0.5))
    kept = [part.get_data_info(i)["sample_idx"] for i in range(len(part))]
    assert kept == sorted(order[16:32])


@pytest.mark.parametrize("split", ["train", "test"])
def test_identity_is_that_of_the_row(trained, split):
    _, row = read_lines(Path("rows.jsonl"))
    identity = read_dump(trained.folder / "logits" / f"{split}.npz").identity
    keys = ("config", "fingerprint", "seed", "teachers", "weights", "commit", "dirty")
    for key in (*keys, "versions", "device"):
        assert identity[key] == row[key], key
    assert identity["weights"] == weights_hash(trained.final)
    assert identity["teachers"] == [weights_hash(folder_of(trained.tiny.teacher) / "final.pth")]
    assert (identity["split"], identity["data"]) == (split, row["data"][split])
    assert identity["method"]["kind"] == "mse"
    assert identity["method"]["label_noise"] == dict(kind="symmetric", rate=0.5)
    assert identity["seed"] == 2


def dump(trained, *words, config=None, final=None):
    name = f"experiment_name=dump{next(commands._number)}"
    words = [config or trained.config, final or trained.final, *map(str, words)]
    main([*words, "--cfg-options", name])


def test_the_tool_writes_what_the_run_did(trained, tmp_path, capsys):
    """To the byte; its seed is the run's, of which the noise of some configs depends."""
    dump(trained, "--out", tmp_path / "a")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"{tmp_path}/a/{split}.npz" for split in ("train", "test")]
    assert not any(line.startswith("note: ") for line in lines)
    for split in ("train", "test"):
        mine, theirs = (
            Path(place, f"{split}.npz").read_bytes()
            for place in (tmp_path / "a", trained.folder / "logits")
        )
        assert mine == theirs
    dump(trained, "--splits", "val", "--out", tmp_path / "b", config=trained.tiny.student)
    assert "note: " in capsys.readouterr().out  # a plain student dumps the distilled weights
    found = read_dump(tmp_path / "b/val.npz")
    assert (found.identity["method"]["kind"], found.teacher_logits) == ("ce", None)
    expected, _ = forward(
        network_of(trained.tiny.student, trained.final),
        digits("val", 40),
    )
    np.testing.assert_allclose(found.logits, expected, atol=1e-5)


def test_only_what_is_stale_is_made_again(trained, tmp_path, capsys):
    dump(trained)
    assert capsys.readouterr().out.count("(there before)") == 2
    final = tmp_path / "final.pth"
    final.write_bytes(Path(trained.final).read_bytes())
    out = tmp_path / "logits"

    def made(*words, **kwargs):
        """Which splits were written."""
        before = {path: path.stat().st_mtime_ns for path in out.glob("*")}
        dump(trained, "--out", out, "--seed", 2, *words, final=str(final), **kwargs)
        return {p.stem for p in out.glob("*") if before.get(p) != p.stat().st_mtime_ns}

    def change(split, **identity):
        with np.load(out / f"{split}.npz") as file:
            arrays = {name: file[name] for name in file.files}
        identity = {**json.loads(str(arrays["identity"])), **identity}
        np.savez(out / f"{split}.npz", **{**arrays, "identity": json.dumps(identity)})

    (out / ".train.npz.x1y2.part").mkdir(parents=True)  # of a killed process
    assert made() == {"train", "test"}
    assert sorted(os.listdir(out)) == ["test.npz", "train.npz"]
    assert made() == set()
    (out / "test.npz").write_bytes((out / "test.npz").read_bytes()[:-30])
    change("train", data="of a data set that has changed")
    assert made() == {"train", "test"}
    change("train", commit="another", versions={})
    change("test", format=0)
    assert made() == {"test"}
    content = torch.load(final, weights_only=False)
    content["state_dict"]["head.fc.bias"] += 1
    torch.save(content, final)
    before = read_dump(out / "test.npz").logits
    assert made("--splits", "test") == {"test"}
    np.testing.assert_allclose(read_dump(out / "test.npz").logits, before + 1, atol=1e-5)
    assert made() == {"train"}


def test_a_finished_run_is_dumped_without_training(trained, tmp_path):
    rows = Path("rows.jsonl").read_text()
    before = {
        split: Path(path).read_bytes() for split, path in find_exports(trained.folder).items()
    }
    for path in find_exports(trained.folder).values():
        Path(path).unlink()
    weights = weights_hash(trained.final)
    train(trained.config, "--seed", 2, "--resume", "auto", "--dump-logits", "train", "test")
    assert weights_hash(trained.final) == weights
    assert {s: Path(p).read_bytes() for s, p in find_exports(trained.folder).items()} == before
    assert Path("rows.jsonl").read_text() == rows


def test_what_a_run_lacks(trained):
    cfg = build_config(build_parser().parse_args([trained.config, "--seed", "2"]))
    assert missing_exports(cfg, ["train", "val", "test"]) == ["val"]
    assert missing_exports(cfg, []) == []
    cfg.test_dataloader.dataset.pipeline.insert(0, dict(type="CenterCrop", crop_size=6))
    assert missing_exports(cfg, ["train", "test"]) == ["train", "test"]
    cfg.test_dataloader.dataset.pipeline.pop(0)
    cfg.test_dataloader.num_workers = 1  # changes no logit
    assert missing_exports(cfg, ["train", "test"]) == []
    cfg.model.loss_kd.type = "mmkd_logit.ScaledKLDivLoss"
    assert missing_exports(cfg, ["train", "test"]) == ["train", "test"]
    assert set(find_exports(trained.folder, weights_hash(trained.final))) == {"train", "test"}
    assert find_exports(trained.folder, "others") == find_exports("nowhere") == {}
    assert read_identity(trained.final) is read_identity("nowhere.npz") is None


def test_a_group(trained):
    """Each leaves the logits that its weights give, also where all else was done before."""
    kl = "--cfg-options model.loss_kd.type=mmkd_logit.ScaledKLDivLoss model.loss_kd.tau=3"
    lines = [
        f"{trained.tiny.kd} --work-dir group/mse --dump-logits test",
        f"{trained.tiny.kd} --work-dir group/kl --dump-logits train test {kl}",
        f"{trained.tiny.student} --work-dir group/ce",
    ]
    Path("runs.txt").write_text("\n".join(lines))
    group.main(["runs.txt", "--results", "group.jsonl"])
    found = {name: find_exports(f"group/{name}") for name in ("mse", "kl", "ce")}
    assert [sorted(each) for each in found.values()] == [["test"], ["test", "train"], []]
    rows = read_lines(Path("group.jsonl"))
    dumps = [read_dump(found[name]["test"]) for name in ("mse", "kl")]
    for row, each in zip(rows[:2], dumps, strict=True):
        assert each.identity["weights"] == row["weights"]
        top1 = 100 * (each.logits.argmax(1) == each.label).mean()
        assert top1 == pytest.approx(row["test"]["accuracy/top1"])
    np.testing.assert_array_equal(dumps[0].teacher_logits, dumps[1].teacher_logits)
    assert (dumps[0].logits != dumps[1].logits).any()
    assert [each.identity["method"]["kind"] for each in dumps] == ["mse", "kl"]
    before = Path(found["kl"]["train"]).read_bytes()
    Path(found["kl"]["train"]).unlink()
    group.main(["runs.txt", "--results", "group.jsonl"])
    assert Path(found["kl"]["train"]).read_bytes() == before
    assert len(read_lines(Path("group.jsonl"))) == 3


def test_the_teacher_is_the_last_one(trained):
    """Of a run whose teacher changes, after training and from its weights alone."""
    teacher = trained.tiny.teacher
    content = torch.load(folder_of(teacher) / "final.pth", weights_only=False)
    content["state_dict"]["head.fc.weight"] *= -1
    torch.save(content, "later.pth")
    config = Path("tiny/switching.py")
    config.write_text(
        f"_base_ = './{Path(trained.tiny.kd).name}'\n"
        "custom_hooks = [dict(type='mmkd_logit.SequentialTeacherHook', stages=[dict(begin=1, "
        f"teacher=dict(config={teacher!r}, checkpoint='later.pth'))])]\n"
    )
    train(str(config), "--epochs", 2, "--dump-logits", "test")
    folder = folder_of(config)  # final.pth is there though the config has no hook for it
    found = read_dump(folder / "logits/test.npz")
    expected, _ = forward(network_of(teacher, "later.pth"), digits("test", 100))
    np.testing.assert_allclose(found.teacher_logits, expected, atol=1e-5)
    words = ["--splits", "test", "--out", "again", "--epochs", "2"]
    main([str(config), str(folder / "final.pth"), *words])
    assert Path("again/test.npz").read_bytes() == (folder / "logits/test.npz").read_bytes()
    tested = Path("tested.json")
    commands.test(str(config), folder / "final.pth", "--out", tested, "--out-item", "metrics")
    right = found.teacher_logits.argmax(1) == found.label
    assert json.loads(tested.read_text())["accuracy/teacher_top1"] == pytest.approx(
        100 * right.mean()
    )


def test_averaged_weights(tmp_path):
    """final.pth holds EMAHook's, and so does the dump; the network of training is another."""
    hooks = [dict(type="EMAHook", momentum=0.3), dict(type="mmkd_logit.FinalCheckpointHook")]
    cfg = run_config(digits_distiller(), tmp_path, custom_hooks=hooks)
    origin = describe_run(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    trained = runner.model.head.fc.weight.detach().clone()
    runner.test()  # as for --results; EMAHook then begins anew with the weights of training
    final = str(tmp_path / "final.pth")
    written = export_logits(runner, ["test"], tmp_path / "logits", final, "x.py", origin, {})
    assert written == ["test"]
    found = read_dump(tmp_path / "logits/test.npz")
    state = torch.load(final, weights_only=False)["state_dict"]
    np.testing.assert_array_equal(found.weight, state["head.fc.weight"])
    assert not np.array_equal(found.weight, trained)
    np.testing.assert_allclose(
        found.prelogits @ found.weight.T + found.bias, found.logits, atol=1e-5
    )


def test_a_checkpoint_of_another_network(tmp_path):
    runner = Runner.from_cfg(run_config(digits_student(), tmp_path / "a"))
    state, hooks = runner.model.state_dict(), list(runner.hooks)
    del state["head.fc.bias"]
    torch.save(dict(state_dict=state), tmp_path / "lacks.pth")
    torch.save({k: v for k, v in state.items() if "fc" not in k}, tmp_path / "bare.pth")
    state["head.fc.weight"], state["head.fc.bias"] = torch.zeros(7, 16), torch.zeros(7)
    torch.save(dict(state_dict=state), tmp_path / "wide.pth")
    for name, says in (("lacks", "missing key"), ("bare", "missing key"), ("wide", "size mism")):
        origin = describe_run(runner.cfg)
        checkpoint = str(tmp_path / f"{name}.pth")
        with pytest.raises(ValueError, match=rf"{name}.pth does not fit .*{says}"):
            export_logits(runner, ["test"], tmp_path, checkpoint, "x.py", origin, {})
    assert not list(tmp_path.glob("*.npz"))
    assert runner.hooks == hooks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.pth"], "the checkpoint none.pth does not exist"),
        (["FINAL", "--amp"], "leave out --amp"),
        (["FINAL", "--cfg-options", "nonsense=1"], "a config has no field 'nonsense'"),
        (["FINAL", "--cfg-options", "test_dataloader=None"], "need .*test_dataloader with a data"),
        (["FINAL", "--out", "rows.jsonl/x", "--seed", "9"], "rows.jsonl"),
        (
            ["FINAL", "--out", "none", "--cfg-options", "model.teacher.checkpoint=none.pth"],
            "the checkpoint none.pth of teacher .* does not exist. Train it first",
        ),
    ],
)
def test_wrong_words_are_one_line(trained, capsys, words, message):
    words = [word.replace("FINAL", trained.final) for word in words]
    assert re.search(message, error_of(capsys, main, trained.config, *words))
    assert not Path("none").exists() or not list(Path("none").iterdir())


def test_wrong_splits_are_known_before_training(workplace, capsys):
    tiny = Tiny()
    for tool, words in (
        (commands.train_tool.main, [tiny.student, "--dump-logits", "tets"]),
        (main, [tiny.student, "x.pth", "--splits", "all"]),
    ):
        with pytest.raises(SystemExit) as stopped:
            tool(words)
        assert stopped.value.code == 2
        assert "train" in capsys.readouterr().err
    Path("none.py").write_text(
        f"_base_ = './{tiny.student}'\ntest_dataloader = None\n"
        "test_cfg = None\ntest_evaluator = None\n"
    )
    message = error_of(capsys, commands.train_tool.main, "none.py", "--dump-logits", "train")
    assert message == "logits of the train split need test_dataloader with a dataset in the config"
    assert not Path("work_dirs").exists()


def test_loaders_give_each_sample_once():
    def loader(**kwargs):
        return dict(dataset=dict(type="X", pipeline=["pack"]), **kwargs)

    cfg = Config(
        dict(
            train_dataloader=dict(dataset=dict(type="Y", pipeline=["crop"])),
            val_dataloader=loader(batch_size=3),
            test_dataloader=loader(sampler=dict(type="Other"), drop_last=True, num_workers=2),
        )
    )
    for split in ("train", "val", "test"):
        found = loader_of(cfg, split)
        assert found["sampler"] == dict(type="DefaultSampler", shuffle=False)
        assert found["drop_last"] is False
        assert found["dataset"] == dict(type="Y" if split == "train" else "X", pipeline=["pack"])
    assert loader_of(cfg, "train")["num_workers"] == 2
    assert cfg.test_dataloader.drop_last is True
    prepare_export(cfg, ["train"])
    prepare_export(cfg, ["train"])
    assert cfg.custom_hooks == [dict(type="mmkd_logit.FinalCheckpointHook")]
