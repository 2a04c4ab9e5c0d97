"""The cost of runs by rows of others."""

from mmkd_logit.lab.cost import seconds_of

CONFIG = "configs/data_amount/wrn16-2_samples.py"
SHARE = "train_dataloader.dataset.per_class"


def row(share, seconds, **overrides):
    given = {SHARE: share, "model.loss_kd.tau": 3, **overrides}
    return dict(config=CONFIG, overrides=given, epochs=200, train_seconds=seconds, device="cpu")


def test_only_rows_on_as_many_images_count():
    rows = [row(0.1, 200.0), row(0.5, 1000.0)]
    assert seconds_of(CONFIG, 100, rows, "cpu", [f"{SHARE}=0.5", "model.alpha=0.9"]) == 500
    assert seconds_of(CONFIG, 100, rows, "cpu", [f"{SHARE}=0.2"]) is None


def test_only_rows_of_as_many_teachers_count():
    several = str([dict(config="t.py", checkpoint="a"), dict(config="t.py", checkpoint="b")])
    rows = [row(0.1, 200.0), row(0.1, 300.0, **{"model.teacher": several})]
    assert seconds_of(CONFIG, 200, rows, "cpu", [f"{SHARE}=0.1"]) == 200
    assert seconds_of(CONFIG, 200, rows, "cpu", [f"{SHARE}=0.1", f"model.teacher={several}"]) == 300
