"""TensorBoard, and any backend of MMEngine's, gets what scalars.json gets, and the figures."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from commands import Tiny, folder_of, train
from matplotlib.figure import Figure
from mmengine.runner import Runner
from mmengine.visualization import BaseVisBackend
from mmpretrain.registry import VISBACKENDS
from runs import digits_distiller, digits_student, run_config

from mmkd_logit.analysis.drawing import Drawing
from mmkd_logit.analysis.figures import PARTS
from mmkd_logit.engine import together
from mmkd_logit.engine.figures_hook import OF_DUMPS, OF_SCALARS, FiguresHook, exhibit_of
from mmkd_logit.engine.fingerprint import weights_hash

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")

LOCAL, BOARD = dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")
NAMES = ("learning_curves", "learning_curves_2", "class_sums")  # of the parts below
METRICS = ("TeacherAgreement", "LogitStatistics", "LogitDistance", "PerClassAccuracy")
OF_BOTH = ("NegativeLogLikelihood", "ExpectedCalibrationError")


@VISBACKENDS.register_module(force=True)  # pytest imports this file twice
class Remembers(BaseVisBackend):
    """A backend of somebody's."""

    images: list = []  # noqa: RUF012

    def _init_env(self):
        pass

    @property
    def experiment(self):
        return self

    def add_image(self, name, image, step=0, **kwargs):
        type(self).images.append((name, image, step))


@pytest.fixture
def images():
    backend = VISBACKENDS.get("Remembers")
    backend.images = []
    return lambda: backend.images


@pytest.fixture
def parts(monkeypatch):
    """Two figures drawn in no time; where it says so, the first one fails."""
    drawn = []

    def part(name, count=1):
        def draw(exhibit):
            drawn.append((name, exhibit))
            if getattr(draw, "fails", False):
                raise ZeroDivisionError("no\nsuch curve")
            figure = Figure(figsize=(2, 1))
            figure.patch.set_facecolor("#ff8000")
            return [Drawing("a/b", "T", "C", figure)] * count

        module = ModuleType(f"mmkd_logit.analysis.figure_{name}")
        module.draw = draw
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return draw

    drawn_by = part("learning_curves", 2), part("class_sums")
    for name in OF_DUMPS:
        part(name)
    return drawn, drawn_by


def visualizer(*backends):
    return dict(type="UniversalVisualizer", vis_backends=[*backends])


def a_run(folder, model=None, hook=None, **kwargs):
    hooks = [
        dict(type="mmkd_logit.FinalCheckpointHook"),
        hook or dict(type="mmkd_logit.FiguresHook"),
    ]
    cfg = run_config(model or digits_student(), folder, custom_hooks=hooks, epochs=1, **kwargs)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_another_backend_gets_pictures(tmp_path, images, parts):
    a_run(tmp_path / "w" / "seed3", visualizer=visualizer(LOCAL, dict(type="Remembers")))
    (first, second, third) = images()
    assert [first[0], second[0], third[0]] == [f"figure_{name}" for name in NAMES]
    assert (first[2], first[1].shape, first[1].dtype) == (4, (120, 240, 3), np.uint8)
    assert first[1][60, 120].tolist() == [255, 128, 0]  # red, green, blue
    drawn, _ = parts
    (name, exhibit) = drawn[0]
    (run,) = exhibit.record["runs"]
    assert (name, run["name"], run["seed"]) == ("learning_curves", "w", 3)
    assert (run["method"]["kind"], run["row"]["iterations"], run["epochs"]) == ("ce", 4, 1)
    (scalars,) = run["files"]["scalars"]
    assert "loss" in json.loads(Path(scalars).read_text().splitlines()[0])
    assert run["files"]["dumps"] == {}


@pytest.mark.parametrize("vis", [None, visualizer(LOCAL)])
def test_nobody_asked(tmp_path, parts, vis):
    a_run(tmp_path, **({} if vis is None else dict(visualizer=vis)))
    assert parts[0] == []


def test_somebody_asked(tmp_path, parts):
    a_run(tmp_path, hook=dict(type="mmkd_logit.FiguresHook", always=True))
    files = {path.name for path in tmp_path.glob("*/vis_data/vis_image/*")}
    assert files == {f"figure_{name}_4.png" for name in NAMES}


def test_a_figure_that_fails_is_a_warning(tmp_path, images, parts):
    parts[1][0].fails = True
    backends = visualizer(dict(type="Remembers"), LOCAL)
    runner = a_run(tmp_path, visualizer=backends, log_level="WARNING")
    assert [name for name, *_ in images()] == ["figure_class_sums"]
    assert runner.iter == 4
    assert (tmp_path / "final.pth").is_file()
    assert says(
        tmp_path, "Its figure of learning curves cannot be drawn: ZeroDivisionError: no such"
    )


def says(folder, text):
    """Whether a run's log has a warning."""
    lines = "".join(path.read_text() for path in folder.glob("*/*.log")).splitlines()
    return [line for line in lines if "WARNING" in line and text in line]


def test_a_run_that_nobody_can_describe(tmp_path, images, parts):
    runner = a_run(tmp_path, visualizer=visualizer(LOCAL))
    runner.cfg.model = None
    FiguresHook(always=True).show(runner)
    assert parts[0] == []
    assert images() == []


def test_parts_are_those_of_the_report():
    assert {*OF_SCALARS, *OF_DUMPS} <= {*PARTS}


def test_only_logits_of_these_weights_are_drawn(tmp_path, parts):
    runner = a_run(tmp_path, visualizer=visualizer(LOCAL))
    (tmp_path / "logits").mkdir()
    for split, weights in (("test", weights_hash(tmp_path / "final.pth")), ("train", "others")):
        identity = np.array(json.dumps(dict(weights=weights)))
        np.savez(tmp_path / "logits" / f"{split}.npz", identity=identity)
    FiguresHook(always=True).show(runner)
    assert [name for name, _ in parts[0]] == [*OF_SCALARS, *OF_DUMPS]
    dumps = exhibit_of(runner).record["runs"][0]["files"]["dumps"]
    assert dumps == dict(test=str(tmp_path / "logits" / "test.npz"))


def events_of(folder):
    """Read a run's TensorBoard files."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance=dict(scalars=0, images=0))
    accumulator.Reload()
    return accumulator


def scalars_of(folder):
    """Every value in scalars.json, by name."""
    found = {}
    (file,) = folder.glob("*/vis_data/scalars.json")
    for line in file.read_text().splitlines():
        row = json.loads(line)
        step = row.pop("step")
        for name, value in row.items():
            found.setdefault(name, []).append((step, pytest.approx(value, rel=1e-6, nan_ok=True)))
    return found


def test_tensorboard_has_the_scalars_of_the_file(tmp_path):
    """Losses, what is only looked at, metrics, and what waits on the device until it is read."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    hooks = dict(
        logger=dict(type="LoggerHook", interval=2),
        checkpoint=dict(type="CheckpointHook"),
        runtime_info=dict(type="mmkd_logit.LazyRuntimeInfoHook"),
        logit_outputs=dict(type="mmkd_logit.LogitOutputsHook"),
        classifier_sum=dict(type="mmkd_logit.ClassifierSumHook"),
        train_accuracy=dict(type="mmkd_logit.TrainAccuracyHook"),
    )
    metrics = [dict(type=f"mmkd_logit.{name}") for name in METRICS]
    metrics += [
        dict(type=f"mmkd_logit.{n}", of=of) for n in OF_BOTH for of in ("student", "teacher")
    ]
    a_run(
        tmp_path,
        digits_distiller(alpha=0.5),
        default_hooks=hooks,
        val_evaluator=[dict(type="Accuracy", topk=(1, 5)), *metrics],
        visualizer=visualizer(LOCAL, BOARD),
    )
    board, file = events_of(next(tmp_path.glob("*/vis_data"))), scalars_of(tmp_path)
    found = {
        name: [(event.step, event.value) for event in board.Scalars(name)]
        for name in board.Tags()["scalars"]
    }
    assert found == file
    names = {"loss", "loss_kd", "loss_ce", "kd", "ce", "teacher_agreement", "batch_top1", "lr"}
    names |= {"classifier/sum_norm", "classifier/sum_deviation", "classifier/bias_sum"}
    names |= {"accuracy/top1", "accuracy/top5", "agreement/top1", "logits/sum_deviation"}
    names |= {"distance/mean", "distance/q50", "class_accuracy/min", "calibration/teacher_nll"}
    assert names <= found.keys()
    assert [step for step, _ in found["loss_kd"]] == [2, 4]


def there(*parts):
    return [part for part in parts if find_spec(f"mmkd_logit.analysis.figure_{part}")]


def test_tensorboard_has_the_figures(workplace):
    """Through the command line, and those of logits once they are dumped."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    tiny = Tiny()
    backends = f"[{LOCAL},{BOARD}]"
    settings = dict(visualizer__vis_backends=backends)
    train(tiny.kd, "--train-teacher", "--dump-logits", "--epochs", 2, **settings)
    folder = folder_of(tiny.kd)
    board = events_of(next(folder.glob("*/vis_data")))
    for part in there(*OF_SCALARS, *OF_DUMPS):
        (picture,) = board.Images(f"figure_{part}")
        assert picture.step == 4
        assert picture.width > 400
        assert picture.encoded_image_string.startswith(b"\x89PNG")
    missing = {*OF_SCALARS, *OF_DUMPS} - {*there(*OF_SCALARS, *OF_DUMPS)}
    assert len(says(folder, "cannot be drawn")) == len(missing)
    assert {"loss_kd", "batch_top1", "classifier/sum_norm"} <= {*board.Tags()["scalars"]}
    assert not list(folder_of(tiny.teacher).glob("*/vis_data/vis_image"))


def test_together_each_run_has_its_own(workplace, images, parts):
    """What was logged of all is split first, and the names say whose a picture is."""
    tiny = Tiny()
    train(tiny.teacher)
    vis = f"visualizer.vis_backends=[{LOCAL},{dict(type='Remembers')}]".replace(" ", "")
    options = f'--cfg-options "{vis}"'
    lines = [
        f"{tiny.student} --work-dir t/ce {options}",
        f"{tiny.kd} --work-dir t/mse --dump-logits test {options}",
    ]
    Path("runs.txt").write_text("\n".join(lines))
    together.main(["runs.txt"])
    expected = [f"s0-figure_{name}" for name in NAMES]
    expected += [f"s1-figure_{name}" for name in (*NAMES, *OF_DUMPS)]
    assert [name for name, *_ in images()] == expected
    kinds = [exhibit.record["runs"][0]["method"]["kind"] for _, exhibit in parts[0]]
    assert kinds == ["ce"] * 2 + ["mse"] * 6
    for (_, exhibit), folder in zip(parts[0][::2], ["ce", "mse", "mse", "mse"], strict=True):
        (scalars,) = exhibit.record["runs"][0]["files"]["scalars"]
        assert Path(scalars).parents[2] == Path("t", folder)
        assert "s0" not in Path(scalars).read_text()
    images().clear()
    Path("t/mse/logits/test.npz").unlink()
    together.main(["runs.txt"])
    assert torch.load("t/mse/final.pth", weights_only=False)["state_dict"]
    assert [name for name, *_ in images()] == [f"s1-figure_{name}" for name in OF_DUMPS]
