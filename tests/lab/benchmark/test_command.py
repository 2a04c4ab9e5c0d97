"""``tools/benchmark.py`` on a config of a second."""

import json
import statistics

import pytest
import torch
from commands import PROJECT

from mmkd_logit.lab.benchmark.command import main
from mmkd_logit.lab.benchmark.speed import COMPARISONS, VARIANTS

KD = "configs/kd/wrn10-1_wrn10-1-thin_mse_digits.py"
QUICK = ("--seconds", "0.01", "--synthetic", "96", "--batch-size", "16")


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.chdir(PROJECT)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def measure(tmp_path, *words):
    file = tmp_path / "found.json"
    main([KD, *QUICK, *words, "--json", str(file)])
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT)
        return measure(tmp_path_factory.mktemp("all"), "--threads", "1")


def test_every_variant_trains(found):
    assert [row["variant"] for row in found["training"]] == list(VARIANTS)
    assert found["machine"]["threads"] == 1
    assert torch.__version__.startswith(found["machine"]["versions"]["torch"])
    notes = " ".join(found["notes"])
    assert "random weights" in notes
    assert "96 random images" in notes
    assert "batches of 16, 0 data workers for bare and plain, 1 threads" in notes


def test_medians_follow_from_the_raw_times(found):
    for row in found["training"]:
        assert len(row["times"]) >= 5
        assert row["seconds"] == statistics.median(row["times"])
        assert row["per_second"] == pytest.approx(16 / row["seconds"])
        low, high = row["per_second_quartiles"]
        assert low <= row["per_second"] <= high


def test_ratios_follow_from_the_raw_times(found):
    times = {row["variant"]: row["times"] for row in found["training"]}
    pairs = [(row["variant"], row["reference"]) for row in found["ratios"]]
    assert all(pairs.count(pair) == 1 for pair in COMPARISONS)
    to_bare = {name for name, reference in pairs if reference == "bare"}
    assert {"plain", "memory", "fast", "fast+cache", "memory+cache-cold"} <= to_bare
    goals = [goals["cpu"] for goals in COMPARISONS.values()] + [None] * len(pairs)
    for row, goal in zip(found["ratios"], goals, strict=False):
        assert row["goal"] == goal
        own, reference = times[row["variant"]], times[row["reference"]]
        median = statistics.median(reference)
        assert row["ratio"] == pytest.approx(median / statistics.median(own))
        neighbours = [b / a for a, b in zip(own, reference, strict=True)]
        low, high = row["quartiles"]
        assert statistics.quantiles(neighbours, n=4)[::2] == pytest.approx([low, high])


def test_caches_are_full_or_empty_as_their_names_say(found):
    hits = {row["variant"]: row["cache_hits"] for row in found["training"]}
    assert hits["memory+cache"] == hits["fast+cache"] == 1
    assert hits["memory+cache-cold"] < 0.9  # a few images have few views
    assert all(share is None for name, share in hits.items() if "cache" not in name)


def test_the_configs_own_cache_is_left_alone(tmp_path):
    root = tmp_path / "caches"
    option = f"model.teacher.cache={{'storage': 'disk', 'root': '{root}'}}"
    words = ["--variants", "memory", "memory+cache", "--cfg-options", option]
    found = measure(tmp_path, *words)
    assert [row["cache_hits"] for row in found["training"]] == [None, 1]
    assert not root.exists()


def test_real_data_and_workers(tmp_path, capsys):
    found = measure(tmp_path, "--variants", "plain", "bare", "--workers", "1")
    assert "1 data workers" in found["notes"][-1]
    assert [row["variant"] for row in found["training"]] == ["plain", "bare"]
    table = capsys.readouterr().out
    assert "| variant | images/s | quartiles | ms a step |" in table
    assert "| plain | bare | " in table
    file = tmp_path / "real.json"
    words = ["--seconds", "0.01", "--variants", "bare", "plain", "--json", str(file)]
    main([KD, *words])
    notes = json.loads(file.read_text())["notes"]
    assert not any("random images" in note for note in notes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to measure"),
        (["configs/absent.py"], "does not exist"),
        ([KD, "--variants", "quick"], "no variant 'quick'"),
        ([KD, "--device", "tpu"], "--device tpu cannot be used here"),
        ([KD, "--batch-size", "0"], "--batch-size must be at least 1"),
        ([KD, "--threads", "0"], "--threads must be at least 1"),
        ([KD, "--synthetic", "0"], "--synthetic must be at least 1"),
        ([KD, "--synthetic", "8", "--batch-size", "16"], "fewer than 16 images"),
        ([KD, "--workers", "-1"], "--workers must be at least 0"),
        (["--losses", "--variants", "bare"], "--variants needs a config"),
        (["--compile"], "nothing to measure"),
        (["configs/wrn/wrn10-1-thin_digits.py"], "has no model.teacher"),
        (["configs/kd/resnet152_resnet50_mse_in1k.py", "--synthetic"], "not for ImageNet"),
        (["configs/methods/wrn16-2_wrn10-1-thin_dkd_digits.py"], "has MSE and KL, not DKDLoss"),
    ],
)
def test_wrong_arguments_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
