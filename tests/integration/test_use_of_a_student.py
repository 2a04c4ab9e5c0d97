"""What others do with a trained student: predictions, exported programs, mmpretrain's tools."""

import io
import runpy
import sys
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from commands import KD, PROJECT, STUDENT
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain import ImageClassificationInferencer, get_model
from PIL import Image

from mmkd_logit.datasets import Digits
from mmkd_logit.registry import load_config

TOOLS = Path(mmpretrain.__file__).parent / ".mim" / "tools"


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A student in evaluation, and a checkpoint of it as training leaves it."""
    torch.manual_seed(3)
    model = get_model(str(PROJECT / STUDENT), pretrained=False).eval()
    for name, value in model.state_dict().items():  # as if it had been trained
        if value.is_floating_point():
            noise = torch.rand(value.shape)
            value.copy_(noise + 0.5 if name.endswith("var") else value + 0.1 * noise)
    path = tmp_path_factory.mktemp("student") / "final.pth"
    meta = dict(dataset_meta=dict(classes=Digits.METAINFO["classes"]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return model, str(path)


def logits_of(model, images):
    with torch.no_grad():
        inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return model(model.data_preprocessor(dict(inputs=inputs))["inputs"])


@pytest.mark.parametrize("config", [STUDENT, KD])
def test_the_inferencer_predicts_as_the_network_does(student, project, config):
    """Of a distilling config it is the student; the teacher's checkpoint does not exist."""
    model, checkpoint = student
    digits = Digits(split="test")
    images = [digits.get_data_info(i)["img"] for i in range(5)]
    predict = ImageClassificationInferencer(config, pretrained=checkpoint, device="cpu")
    expected = logits_of(model, images).softmax(1)
    for found, scores in zip(predict(images, batch_size=2), expected, strict=True):
        np.testing.assert_allclose(found["pred_scores"], scores, atol=1e-6)
        assert found["pred_class"] == str(scores.argmax().item()) == str(found["pred_label"])


def test_pictures_of_cifar_from_any_folder(tmp_path, monkeypatch):
    """Files are read as BGR."""
    monkeypatch.chdir(tmp_path)
    cfg = load_config("mmkd_logit::wrn/wrn16-2.py")
    picture = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    predict = ImageClassificationInferencer(cfg, pretrained=False, device="cpu")
    assert len(predict(picture)[0]["pred_scores"]) == 100
    Image.fromarray(picture).save("picture.png")
    np.testing.assert_allclose(
        predict("picture.png")[0]["pred_scores"],
        predict(picture[..., ::-1].copy())[0]["pred_scores"],
        atol=1e-6,
    )


def test_torch_export_gives_the_same_logits(student):
    model, _ = student
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        model, (torch.rand(3, 1, 8, 8),), dynamic_shapes=((batch, None, None, None),)
    )
    inputs = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(program.module()(inputs), model(inputs))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnx_gives_the_same_logits(student):
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    (model, _), file = student, io.BytesIO()
    torch.onnx.export(
        model,
        (torch.rand(3, 1, 8, 8),),
        file,
        dynamo=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "batch"}},
    )
    inputs = torch.rand(5, 1, 8, 8)
    program = ReferenceEvaluator(onnx.load_from_string(file.getvalue()))
    (logits,) = program.run(["logits"], {"images": inputs.numpy()})
    np.testing.assert_allclose(logits, model(inputs).detach(), atol=1e-4)


@pytest.mark.parametrize("loader", ["test_dataloader", "val_dataloader"])
def test_transforms_of_the_wrapper_replace_those_inside(project, loader):
    """As mmpretrain's tools write them: of test-time augmentation, and of k-fold's parts."""
    cfg = Config.fromfile(STUDENT)
    dataset = cfg[loader].dataset
    assert [step.type for step in dataset.pipeline] == ["mmpretrain.PackInputs"]
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        plain = DATASETS.build(dataset)
        flips = [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)]
        steps = [dict(type="TestTimeAug", transforms=[flips, [dict(type="PackInputs")]])]
        flipped, upright = DATASETS.build(dict(dataset, pipeline=steps))[7]["inputs"]
        part = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=dataset.pipeline))
    image = plain[7]["inputs"]
    assert torch.equal(upright, image)
    assert torch.equal(flipped, image.flip(-1))
    assert not torch.equal(flipped, upright)
    views = part.__getitems__([0, 1])["data_samples"].views
    assert views.per_sample == 1  # no crop is left
    samples = [plain[i]["data_samples"].gt_label.item() for i in range(20)]
    plain.pipeline = plain.pipeline
    assert not plain.in_memory
    assert [plain[i]["data_samples"].gt_label.item() for i in range(20)] == samples
    assert torch.equal(plain[7]["inputs"], image)


@pytest.mark.parametrize("phase", ["train", "test"])
def test_mmpretrains_browse_dataset_shows_our_data(project, tmp_path, monkeypatch, phase):
    config = tmp_path / "plain.py"  # its visualizer has no _scope_, with which the tool fails
    config.write_text(
        f"_base_ = '{PROJECT / STUDENT}'\n"
        "visualizer = dict(_delete_=True, type='UniversalVisualizer')\n"
    )
    words = [str(config), "--phase", phase, "--not-show", "--output-dir", str(tmp_path)]
    words += ["--show-number", "2", "--mode", "original"]
    monkeypatch.setattr(sys, "argv", ["browse_dataset.py", *words])
    tool = TOOLS / "visualization" / "browse_dataset.py"
    if not tool.is_file():
        pytest.skip("mmpretrain came without its tools")
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        runpy.run_path(str(tool), run_name="__main__")
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == ["0.jpg", "1.jpg"]
