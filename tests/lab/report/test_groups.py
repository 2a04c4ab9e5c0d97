"""Which runs are drawn together."""

import pytest
from dump_records import METHODS, NETWORK, TEACHER, experiment_of, name_of, run_of, runs_of

from mmkd_logit.lab.report.groups import group_by_teacher, network_name
from mmkd_logit.lab.report.style import CE, MSE


def families_of(runs, tmp_path):
    return group_by_teacher(experiment_of(tmp_path, runs).record)


def names_in(family):
    return {run["name"] for method in family.methods for run in method.runs.values()}


def test_one_network_taught_by_one(tmp_path):
    runs = [run for seed in (0, 1) for run in runs_of(seed)]
    (family,) = families_of(runs, tmp_path)
    names = ["CE", "KL τ = 1", "KL τ = 3", "KL τ = 5", "KL τ = 20", "KL τ = ∞", "MSE"]
    assert [method.name for method in family.methods] == names
    assert (family.methods[0].look, family.methods[-1].look) == (CE, MSE)
    assert family.seeds == [0, 1]
    assert family.title == "WRN-28-4 → WRN-16-2"
    assert (family.tag, family.notes) == ("", [])


def test_a_family_for_each_student_network(tmp_path):
    teacher = run_of("teacher", 0, "ce", TEACHER)
    other = "WideResNetCIFAR depth=16 widen_factor=4"
    runs = [teacher, *runs_of(0, teacher=teacher), *runs_of(0, network=other, teacher=teacher)]
    first, second = families_of(runs, tmp_path)
    assert (first.title, second.title) == ("WRN-28-4 → WRN-16-2", "WRN-28-4 → WRN-16-4")
    assert (first.tag, second.tag) == (first.title, second.title)  # of their files
    assert names_in(first) == {name_of(method) for method in METHODS}
    assert not names_in(first) & names_in(second)


def test_the_teacher_is_no_student_of_its_own(tmp_path):
    """Taught by its own kind, the student by cross-entropy is the teacher."""
    teacher = run_of("teacher", 0, "ce", TEACHER)
    runs = [teacher, *runs_of(0, network=TEACHER, teacher=teacher)]
    for run in runs:
        if run["name"].endswith("_ce"):
            run["work_dir"] = teacher["work_dir"]
    (family,) = families_of(runs, tmp_path)
    assert family.methods[0].name == "KL τ = 1"


def test_students_of_other_teachers_share_the_one_without(tmp_path):
    teachers = [run_of(name, 0, "ce", TEACHER) for name in ("big", "small")]
    runs = [*teachers, run_of("ce", 0, "ce", NETWORK)]
    for teacher in teachers:
        runs.append(run_of(f"{teacher['name']}_mse", 0, "mse", NETWORK, None, (teacher,)))
    runs.append(run_of("both", 0, "mse", NETWORK, None, teachers))
    found = families_of(runs, tmp_path)
    assert [names_in(family) for family in found] == [
        {"ce", "big_mse"},
        {"ce", "small_mse"},
        {"ce", "both"},
    ]
    assert len({family.title for family in found}) == 3
    assert len({family.tag for family in found}) == 3


def test_label_noise_and_parts_of_the_data_stay_apart(tmp_path):
    """Also where the samples of each seed are others."""
    runs = []
    for seed in (0, 1):
        teacher = run_of("teacher", seed, "ce", TEACHER)
        runs.append(teacher)
        for rate in (0.4, 0.6):
            noise = dict(kind="symmetric", rate=rate)
            for kind in ("ce", "mse"):
                run = run_of(
                    f"{kind}{rate}", seed, kind, NETWORK, None,
                    () if kind == "ce" else (teacher,), label_noise=noise,
                )  # fmt: skip
                run["row"]["data"] = dict(train=f"{rate} {seed}")
                runs.append(run)
        for kind in ("ce", "mse"):
            run = run_of(f"{kind}_part", seed, kind, NETWORK, None, (teacher,) * (kind == "mse"))
            run["row"]["data"] = dict(train="a part")
            runs.append(run)
    found = {family.title: names_in(family) for family in families_of(runs, tmp_path)}
    title = "WRN-28-4 → WRN-16-2"
    assert found == {
        f"{title}, symmetric label noise 40 %": {"ce0.4", "mse0.4"},
        f"{title}, symmetric label noise 60 %": {"ce0.6", "mse0.6"},
        title: {"ce_part", "mse_part"},
    }


def test_the_same_data_with_other_seeds(tmp_path):
    """No seed was finished by both methods."""
    runs = [run for seed in (0, 1) for run in runs_of(seed, ("ce", "mse"))]
    for run in runs:
        if (run["name"], run["seed"]) in (("ce", 0), ("mse", 1)):
            run["row"] = None
        elif run["name"] == "teacher":
            run["row"]["data"] = dict(train="more")
    (family,) = families_of(runs, tmp_path)
    assert {method.name: list(method.runs) for method in family.methods} == dict(CE=[1], MSE=[0])


def test_the_largest_alpha(tmp_path):
    teacher = run_of("teacher", 0, "ce", TEACHER)
    runs = [teacher]
    for alpha in (0.1, 0.5):
        runs.append(run_of(f"a{alpha}", 0, "kl", NETWORK, 3, (teacher,), alpha=alpha))
    (family,) = families_of(runs, tmp_path)
    assert names_in(family) == {"a0.5"}
    assert family.notes == ["α = 0.5"]


def test_what_did_not_finish_is_told(tmp_path):
    runs = [run for seed in (0, 1) for run in runs_of(seed)]
    for run in runs:
        if run["name"] == "kl-t3" or (run["name"], run["seed"]) == ("mse", 1):
            run["row"] = None
    (family,) = families_of(runs, tmp_path)
    assert family.notes == [
        "KL τ = 3 did not finish with 2 seeds",
        "MSE did not finish with 1 seed",
    ]
    assert not next(m for m in family.methods if m.name == "KL τ = 3").runs
    assert families_of([{**run, "row": None} for run in runs], tmp_path) == []


def test_other_methods_and_twins(tmp_path):
    teacher = run_of("teacher", 0, "ce", TEACHER)
    runs = [teacher, *(run_of(name, 0, "mse", NETWORK, None, (teacher,)) for name in ("a", "b"))]
    runs.append(run_of("dkd", 0, "other", NETWORK, 4, (teacher,), loss="DKDLoss"))
    (family,) = families_of(runs, tmp_path)
    assert [method.name for method in family.methods] == ["a", "b"]  # as in the table
    assert len({method.look[:3] for method in family.methods}) == 2
    assert families_of([teacher, runs[-1]], tmp_path) == []


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("ResNet_CIFAR depth=50", "ResNet CIFAR-50"),
        ("MobileNetV2 widen_factor=0.5", "MobileNetV2 widen_factor=0.5"),
        ("WideResNetCIFAR depth=10 widen_factor=1 strides=1x1x2", "WRN-10-1"),
        (None, "a network"),
    ],
)
def test_names_of_networks(network, name):
    assert network_name(network) == name
