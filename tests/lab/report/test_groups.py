"""Which runs are drawn together."""

import pytest
from dump_records import METHODS, NETWORK, TEACHER, experiment_of, name_of, run_of, runs_of
from lab.report.records import Records

from mmkd_logit.lab.report.groups import (
    find_grids,
    group_by_row,
    group_by_teacher,
    network_name,
)
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


# Alphas


def shown(groups):
    """By title the runs that are drawn, by their names in the legend."""
    return {
        group.title: {m.name: run["name"] for m in group.methods for run in m.runs.values()}
        for group in groups
    }


def table_of(tmp_path, losses, **places):
    """A table with one seed of each (loss, tau, alpha); ``places`` are row and column of it."""
    records = Records(tmp_path)
    for kind, tau, alpha in losses:
        name = f"{kind}{tau or ''}_{alpha}"
        row, column = places.get(kind, (f"{kind.upper()} {tau or ''}".strip(), f"alpha {alpha}"))
        more = dict(kind=kind, tau=tau, alpha=alpha, label=kind.upper(), shows_tau=kind == "kl")
        records.add(name, [70.0], row=row, column=column, **more)
    return records.experiment().record


def test_every_loss_of_a_table_is_drawn_at_its_alpha(tmp_path):
    """As in table 2: the alphas are the methods', and no loss has two."""
    losses = [("dkd", 4, 0.5), ("dist", 4, 0.5), ("kl", 4, 0.9), ("kl", 20, 1.0), ("mse", None, 1)]
    record = table_of(tmp_path, losses)
    record["cells"] = {name: [name, ""] for name in record["cells"]}  # a list
    names = ["KL τ = 4", "KL τ = 20", "MSE", "DKD", "DIST"]
    runs = ["kl4_0.9", "kl20_1.0", "mse_1", "dkd4_0.5", "dist4_0.5"]
    assert find_grids(record) == []
    for groups in (group_by_row(record), group_by_teacher(record)):
        (drawn,) = shown(groups).values()
        assert drawn == dict(zip(names, runs, strict=True))
    assert group_by_teacher(record)[0].notes == ["α = 0.5, 0.9, 1"]


def test_two_losses_at_two_alphas(tmp_path):
    """They have no grid in common; names that they share are completed by the row."""
    losses = [(*loss, alpha) for loss in (("kl", 3), ("mse", None)) for alpha in (0.5, 1)]
    record = table_of(tmp_path, losses)
    assert find_grids(record) == []
    assert shown(group_by_row(record)) == {
        "KL 3": {"alpha 0.5": "kl3_0.5", "alpha 1": "kl3_1"},
        "MSE": {"alpha 0.5": "mse_0.5", "alpha 1": "mse_1"},
    }
    (drawn,) = shown(group_by_teacher(record)).values()
    assert drawn == {
        "KL 3, alpha 0.5": "kl3_0.5",
        "KL 3, alpha 1": "kl3_1",
        "MSE, alpha 0.5": "mse_0.5",
        "MSE, alpha 1": "mse_1",
    }


GRID = [("kl", tau, alpha) for tau in (1, 20) for alpha in (0.1, 0.5, 1.0)]


@pytest.mark.parametrize(
    ("missing", "alpha"), [((), 1.0), ([("kl", 20, 1.0)], 0.5), ([("kl", 1, 0.1)], 1.0)]
)
def test_a_grid_at_the_largest_alpha_of_all_taus(tmp_path, missing, alpha):
    """And the rest of the table by row, with its other loss."""
    losses = [place for place in GRID if place not in missing]
    record = table_of(tmp_path, [*losses, ("mse", None, 0.5)])
    (grid,) = find_grids(record)
    assert (grid.methods, grid.alphas) == (["KL τ = 1", "KL τ = 20"], [0.1, 0.5, 1.0])
    assert len(grid.names) == len(losses)
    drawn = {"KL τ = 1": f"kl1_{alpha}", "KL τ = 20": f"kl20_{alpha}"}
    assert shown(group_by_row(record)) == {"A title": drawn, "MSE": {"MSE": "mse_0.5"}}
    assert group_by_row(record)[0].notes == [f"Of all α, that of {alpha:g}."]
    (by_teacher,) = shown(group_by_teacher(record)).values()
    assert by_teacher == {**drawn, "MSE": "mse_0.5"}


def test_no_alpha_is_that_of_every_tau(tmp_path):
    losses = [("kl", 1, 0.5), ("kl", 1, 0.9), ("kl", 20, 1.0)]
    record = table_of(tmp_path, losses)
    assert find_grids(record) == []
    (drawn,) = shown(group_by_teacher(record)).values()
    assert set(drawn.values()) == {"kl1_0.5", "kl1_0.9", "kl20_1.0"}


def test_grids_of_two_losses_have_two_titles(tmp_path):
    both = [(kind, tau, alpha) for kind in ("kl", "bkl") for _, tau, alpha in GRID]
    record = table_of(tmp_path, both)
    for run in record["runs"]:
        run["method"]["shows_tau"] = True
    record["cells"] = {name: [f"tau {name}", ""] for name in record["cells"]}
    assert [grid.title for grid in find_grids(record)] == ["A title", "A title (BKL)"]
