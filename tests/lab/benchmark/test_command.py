"""``tools/benchmark.py`` on a config of a second."""

import importlib
import json
import statistics

import pytest
import torch
from commands import PROJECT

from mmkd_logit.lab.benchmark import speed
from mmkd_logit.lab.benchmark.command import main
from mmkd_logit.lab.benchmark.sessions import TorchdistillSession, base_config
from mmkd_logit.lab.benchmark.speed import REFERENCES, VARIANTS, render

KD = "configs/kd/wrn10-1_wrn10-1-thin_mse_digits.py"
QUICK = ("--seconds", "0.01", "--synthetic", "96", "--batch-size", "16")
# Compiling takes a minute; the bare loop's own tests compile with another backend.
FEW = [name for name in VARIANTS if not name.startswith("bare-fast")]


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
    pytest.importorskip("torchdistill")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT)
        patch.setattr(speed, "TEACHERS", (1, 2))
        patch.setattr(speed, "CLASSES", (100, 21841))
        folder = tmp_path_factory.mktemp("all")
        return measure(folder, "--threads", "1", "--growth", "--variants", *FEW)


def test_every_variant_trains(found):
    assert [row["name"] for row in found["training"]] == FEW
    assert found["machine"]["threads"] == 1
    assert torch.__version__.startswith(found["machine"]["versions"]["torch"])
    notes = " ".join(found["notes"])
    assert "random weights" in notes
    assert "96 random images" in notes
    assert "batches of 16, 0 data workers of bare and torchdistill 1." in notes


@pytest.mark.parametrize("table", ["training", "teachers", "classes"])
def test_ratios_follow_from_the_raw_times(found, table):
    rows = {row["name"]: row for row in found[table]}
    references = REFERENCES if table == "training" else [next(iter(rows))]
    for name, row in rows.items():
        assert set(row["ratios"]) == {each for each in references if each in rows} - {name}
        assert len(row["cpu_ms"]) == len(row["wall_ms"]) >= 5
        for reference, found_ratio in row["ratios"].items():
            own, other = row["cpu_ms"], rows[reference]["cpu_ms"]
            quotient = statistics.median(own) / statistics.median(other)
            assert found_ratio["ratio"] == pytest.approx(quotient)
            neighbours = [a / b for a, b in zip(own, other, strict=True)]
            quartiles = statistics.quantiles(neighbours, n=4)[::2]
            assert found_ratio["quartiles"] == pytest.approx(quartiles)


def test_memory_is_of_each_process(found):
    peaks = [row["peak_mib"] for row in found["classes"]]
    assert all(100 < peak < 10_000 for peak in peaks)
    # WRN-10-1 has 64 features: two matrices more of 64 x 21,841, gradient, momentum, logits.
    assert 5 < peaks[1] - peaks[0] < 500


def test_caches_are_full_or_empty_as_their_names_say(found):
    hits = {row["name"]: row["cache_hits"] for row in found["training"]}
    assert hits["exact-warm"] == hits["fast-warm"] == 1
    assert hits["exact-cold"] < 0.9  # a few images have few views
    assert all(hits[name] is None for name in ("torchdistill", "bare", "exact"))


def test_tables(found):
    text = render(found)
    assert "| training | CPU, ms an image | wall, ms an image | peak memory, MiB |" in text
    assert [title for title in ("training", "teachers", "classes") if f"\n| {title} |" in text]
    (line,) = [line for line in text.splitlines() if line.startswith("| exact |")]
    row = next(row for row in found["training"] if row["name"] == "exact")
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert float(cells[1]) == pytest.approx(statistics.median(row["cpu_ms"]), rel=0.01)
    assert cells[3] == str(row["peak_mib"])
    assert cells[4].startswith(f"{row['ratios']['torchdistill']['ratio']:.2f} [")
    assert "load average" in text.splitlines()[-1]


def test_the_configs_own_cache_is_left_alone(tmp_path):
    root = tmp_path / "caches"
    option = f"model.teacher.cache={{'storage': 'disk', 'root': '{root}'}}"
    words = ["--variants", "exact", "exact-warm", "--cfg-options", option]
    found = measure(tmp_path, *words)
    assert [row["cache_hits"] for row in found["training"]] == [None, 1]
    assert not root.exists()


def test_real_data_and_workers(tmp_path, capsys):
    file = tmp_path / "real.json"
    words = ["--seconds", "0.01", "--variants", "bare", "--workers", "1", "--json", str(file)]
    main([KD, *words])
    notes = json.loads(file.read_text())["notes"]
    assert not any("random images" in note for note in notes)
    assert "1 data workers" in notes[-1]
    assert "| bare | " in capsys.readouterr().out


def test_without_torchdistill_a_line_says_so(tmp_path, monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr("mmkd_logit.losses.feature.import_module", missing)
    found = measure(tmp_path, "--variants", "torchdistill", "bare")
    assert [row["name"] for row in found["training"]] == ["bare"]
    captured = capsys.readouterr()
    for text in (found["notes"][-1], captured.out, captured.err):
        assert "not measured: DistillationBox is torchdistill's, which is not installed" in text
    monkeypatch.setattr("mmkd_logit.losses.feature.import_module", importlib.import_module)


@pytest.mark.parametrize(
    ("loss", "alpha"),
    [
        ("dict(type='mmkd_logit.LogitMSELoss')", 1.0),
        ("dict(type='mmkd_logit.LogitMSELoss')", 0.25),
        ("dict(type='mmkd_logit.ScaledKLDivLoss', tau=3.0)", 1.0),
        ("dict(type='mmkd_logit.ScaledKLDivLoss', tau=3.0)", 0.25),
    ],
)
def test_torchdistill_trains_what_we_train(tmp_path, loss, alpha):
    pytest.importorskip("torchdistill")
    options = {"model.loss_kd": eval(loss, {}, {}), "model.alpha": alpha}
    cfg, _ = base_config(KD, str(tmp_path), options, 16, 96)
    session = TorchdistillSession(cfg, "cpu")
    box = session.box
    images, labels, extra = next(iter(session.loader))
    assert images.shape == (16, 1, 8, 8)
    before = [parameter.clone() for parameter in box.student_model.parameters()]
    frozen = [value.clone() for value in box.teacher_model.state_dict().values()]
    found = box.forward_process(images, labels, extra).detach()
    with torch.no_grad():
        u, v = box.student_model(images).double(), box.teacher_model(images).double()
        kd = ((u - v) ** 2).mean()
        if "tau" in loss:
            q, log_p = torch.softmax(v / 3, 1), torch.log_softmax(u / 3, 1)
            kd = 9 * (q * (q.log() - log_p)).sum(1).mean()
        ce = torch.nn.functional.cross_entropy(u, labels)
    assert float(found) == pytest.approx(float(alpha * kd + (1 - alpha) * ce), rel=1e-4)
    for _ in range(2):
        session.step()
    changed = [
        not torch.equal(a, b) for a, b in zip(before, box.student_model.parameters(), strict=True)
    ]
    assert all(changed)
    for a, b in zip(frozen, box.teacher_model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


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
        (
            [KD, "--synthetic", "8", "--batch-size", "16", "--variants", "bare"],
            "fewer than 16 images",
        ),
        ([KD, "--workers", "-1"], "--workers must be at least 0"),
        (["--losses", "--variants", "bare"], "--variants needs a config"),
        (["--losses", "--growth"], "--growth needs a config"),
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
