import re

import pytest
from mmengine.config import Config

from mmkd_logit.engine.config import (
    LocalTeacher,
    explain_missing,
    find_missing_teachers,
    teachers_of,
)
from mmkd_logit.engine.fingerprint import teacher_hashes


def config(*teachers, **kwargs):
    teacher = list(teachers) if len(teachers) != 1 else teachers[0]
    return Config(dict(model=dict(type="mmkd_logit.LogitDistiller", teacher=teacher, **kwargs)))


def spec(checkpoint, config="configs/wrn/wrn28-4.py"):
    return dict(config=config, checkpoint=checkpoint)


def test_plain_models_have_no_teachers():
    assert find_missing_teachers(Config(dict(model=dict(type="ImageClassifier")))) == []


def test_what_is_there_or_elsewhere_is_not_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a b.pth").touch()
    there = [
        spec(str(tmp_path / "a b.pth")),
        spec("~/a b.pth"),
        spec("https://x.org/final.pth"),
        spec("open-mmlab://resnet50"),
        spec(None),
        dict(config="configs/wrn/wrn28-4.py"),
        "resnet50_8xb32_in1k",
    ]
    assert find_missing_teachers(config(*there)) == []
    with pytest.raises(ValueError, match="checkpoint must be a path"):
        find_missing_teachers(config(spec(3)))


OPTIONS = dict(micro_batch=8, autocast="bfloat16", cache=dict(storage="memory"))


def test_options_of_a_teacher():
    (teacher,) = teachers_of(config(dict(spec("a.pth"), **OPTIONS))).values()
    assert teacher.options == OPTIONS
    assert type(teacher.options["cache"]) is dict
    for plain in ("resnet50_8xb32_in1k", dict(type="ImageClassifier", backbone={})):
        (teacher,) = teachers_of(config(plain)).values()
        assert teacher.options == {}


def test_a_teacher_with_options_is_found_by_its_checkpoint(tmp_path):
    teacher = dict(spec(str(tmp_path / "seed3/final.pth")), **OPTIONS)
    (missing,) = find_missing_teachers(config(teacher))
    assert (missing.seed, missing.setting) == (3, "model.teacher.checkpoint")
    before = teacher_hashes(config(teacher))
    (tmp_path / "seed3").mkdir()
    (tmp_path / "seed3/final.pth").write_text("weights")
    assert find_missing_teachers(config(teacher)) == []
    plain = config(spec(str(tmp_path / "seed3/final.pth")))
    assert teacher_hashes(config(teacher)) == teacher_hashes(plain) != before


def test_a_missing_ensemble_is_named_once_each():
    first, second = (spec(f"work_dirs/wrn28-4/seed{seed}/final.pth") for seed in (0, 1))
    missing = find_missing_teachers(config(first, second, first))
    assert [teacher.seed for teacher in missing] == [0, 1]
    assert explain_missing(missing) == (
        "the teacher's checkpoint work_dirs/wrn28-4/seed0/final.pth does not exist; make it with: "
        "python tools/train.py configs/wrn/wrn28-4.py --seed 0; "
        "the teacher's checkpoint work_dirs/wrn28-4/seed1/final.pth does not exist; make it with: "
        "python tools/train.py configs/wrn/wrn28-4.py --seed 1; "
        "or add --train-teacher to train it first"
    )


def sequential(*stages, teacher=None, **hook):
    hooks = [dict(type="EMAHook"), dict(hook or SEQUENTIAL, stages=list(stages))]
    cfg = config(teacher or spec("open-mmlab://x"))
    cfg.custom_hooks = hooks
    return cfg


SEQUENTIAL = dict(type="mmkd_logit.SequentialTeacherHook")


def test_teachers_of_later_stages_are_teachers():
    first, second, third = (spec(f"work_dirs/wrn28-4/seed{seed}/final.pth") for seed in range(3))
    stages = [dict(begin=1, alpha=0.5), dict(begin=2, teacher=second)]
    stages += [dict(begin=3, teacher=[first, third])]
    cfg = sequential(*stages, teacher=first)
    assert [t.as_config() for t in teachers_of(cfg).values()] == [first, second, first, third]
    assert [teacher.seed for teacher in find_missing_teachers(cfg)] == [0, 1, 2]
    # Another hook's stages are none of ours, and what the hook refuses is its own to refuse.
    assert find_missing_teachers(sequential(*stages, type="SwitchRecipeHook")) == []
    assert find_missing_teachers(sequential(3, dict(begin=1))) == []
    broken = sequential()
    broken.custom_hooks[1].stages = None
    assert list(teachers_of(broken)) == ["model.teacher"]


def test_where_a_stages_teacher_is_set(tmp_path):
    """The field that is named can be set on the command line."""
    stage = dict(begin=2, teacher=spec("best.pth"))
    ensemble = dict(begin=3, teacher=[spec("open-mmlab://x"), spec("other.pth")])
    cfg = sequential(dict(begin=1, alpha=0.5), stage, ensemble)
    words = explain_missing(find_missing_teachers(cfg))
    fields = re.findall(r"set (\S+) to a checkpoint of configs/wrn/wrn28-4.py", words)
    assert fields == [
        "custom_hooks.1.stages.1.teacher.checkpoint",
        "custom_hooks.1.stages.2.teacher.1.checkpoint",
    ]
    there = tmp_path / "there.pth"
    there.touch()
    cfg.merge_from_dict({field: str(there) for field in fields})
    assert find_missing_teachers(cfg) == []


def test_commands_name_seed_and_folder():
    def command(checkpoint, file="configs/wrn/wrn28-4.py"):
        return find_missing_teachers(config(spec(checkpoint, file)))[0].command

    train = "python tools/train.py configs/wrn/wrn28-4.py"
    assert command("work_dirs/wrn28-4/seed3/final.pth") == f"{train} --seed 3"
    assert command("./work_dirs/wrn28-4/seed3/final.pth") == f"{train} --seed 3"
    assert command("other/seed3/final.pth") == f"{train} --seed 3 --work-dir other/seed3"
    assert command("other/final.pth") == f"{train} --work-dir other"
    assert command("mein Ordner/final.pth") == f"{train} --work-dir 'mein Ordner'"
    assert command("o/final.pth", "a b.py") == "python tools/train.py 'a b.py' --work-dir o"


def test_what_no_command_makes():
    other = LocalTeacher("configs/wrn/wrn28-4.py", "best.pth")
    model = find_missing_teachers(config(spec("final.pth", dict(type="ImageClassifier"))))[0]
    assert not other.can_be_trained
    assert not model.can_be_trained
    assert explain_missing([other, model]) == (
        "the teacher's checkpoint best.pth does not exist; set model.teacher.checkpoint to a "
        "checkpoint of configs/wrn/wrn28-4.py; the teacher's checkpoint final.pth does not exist; "
        "set model.teacher.checkpoint to an existing file"
    )
