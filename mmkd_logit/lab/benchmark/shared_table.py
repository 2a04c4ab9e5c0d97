"""The cost of students that train together."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config

from mmkd_logit.engine.group import join_configs

from .sessions import RunnerSession, edited, in_memory
from .timing import interleave, round_of

Row = dict[str, Any]

# The row of Table 1: cross-entropy, five temperatures, the MSE between logits.
LOSSES: dict[str, dict[str, Any] | None] = {
    "CE": None,
    **{
        f"tau {tau}": dict(type="mmkd_logit.ScaledKLDivLoss", tau=tau)
        for tau in (1, 3, 5, 20, "inf")
    },
    "MSE": dict(type="mmkd_logit.LogitMSELoss"),
}
_GOAL = 1.05
_TOGETHER, _TEACHER = "together", "teacher alone"


def shared_rows(
    cfg: Config,
    device: torch.device,
    seconds: float,
    edit: Callable[[Config], Any] = lambda cfg: None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Row], list[Row]]:
    """Time Table 1's row of students together, apart, and in its parts."""
    members = {name: _member(cfg, name, edit) for name in LOSSES}
    names = {f"s{number}": name for number, name in enumerate(members)}
    say(f"preparing {len(members)} students together")
    joined = edited(join_configs({key: members[name] for key, name in names.items()}))
    group = RunnerSession(joined)
    steps: dict[str, Callable[[], Any]] = {_TOGETHER: group.step}
    teacher, steps_alone = _parts(group)
    steps[_TEACHER] = teacher
    steps |= {f"{names[key]}, student alone": step for key, step in steps_alone.items()}
    stock = {_TOGETHER: group.stock}
    for name, member in members.items():
        say(f"preparing {name} in a run of its own")
        session = RunnerSession(member)
        steps[f"{name}, own run"], stock[f"{name}, own run"] = session.step, session.stock
    rounds = [round_of(step, device, stock.get(name, 0)) for name, step in steps.items()]
    times = dict(zip(steps, interleave(rounds, seconds * len(steps), title="sharing"), strict=True))
    rows = [
        dict(name=name, seconds=statistics.median(own), times=own) for name, own in times.items()
    ]
    parts = [_TEACHER, *(name for name in times if name.endswith(", student alone"))]
    own = [name for name in times if name.endswith(", own run")]
    return rows, [
        _ratio("together, to one teacher pass and each student's step", times, parts, _GOAL),
        _ratio("together, to the runs of their own", times, own, None),
    ]


def _member(cfg: Config, name: str, edit: Callable[[Config], Any]) -> Config:
    member = in_memory(edited(cfg))
    loss = LOSSES[name]
    if loss is None:
        member.model.alpha = 0.0  # equals the plain student, bit for bit
    else:
        member.model.loss_kd = loss
    edit(member)
    member.work_dir = f"{member.work_dir}/{name.replace(' ', '')}"
    return member


def _parts(group: RunnerSession) -> tuple[Callable[[], Any], dict[str, Callable[[], Any]]]:
    """Return the teacher's pass and every student's step on one batch, without data and hooks."""
    model, wrappers = group.model, group.runner.optim_wrapper
    model.train()
    batch = group.loader()()
    inputs, samples = batch["inputs"], batch["data_samples"]
    (teacher,) = {id(t): t for s in model.students.values() for t in s.teachers}.values()

    def run_teacher() -> torch.Tensor:
        with model.step_context(wrappers):
            return teacher(inputs)

    logits = run_teacher()

    def step_of(name: str) -> Callable[[], Any]:
        student, wrapper = model.students[name], wrappers[name]

        def step() -> None:
            with wrapper.optim_context(student):
                losses = student.loss(inputs, samples, logits)
            wrapper.update_params(student.parse_losses(losses)[0])

        return step

    return run_teacher, {name: step_of(name) for name in model.students}


def _ratio(text: str, times: dict[str, list[float]], names: list[str], goal: float | None) -> Row:
    together = times[_TOGETHER]
    sums = [sum(each) for each in zip(*(times[name] for name in names), strict=True)]
    pairs = [a / b for a, b in zip(together, sums, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    whole = statistics.median(together) / sum(statistics.median(times[n]) for n in names)
    return dict(text=text, ratio=whole, quartiles=[low, high], goal=goal)


def render_shared(rows: list[Row], ratios: list[Row]) -> str:
    """Render the rows of :func:`shared_rows` in Markdown."""
    lines = ["| a step of | ms |", "|---|---|"]
    lines += [f"| {row['name']} | {1e3 * row['seconds']:.4g} |" for row in rows]
    lines += ["", "| time | ratio | quartiles | goal, at most |", "|---|---|---|---|"]
    for row in ratios:
        low, high = row["quartiles"]
        goal = "" if row["goal"] is None else f"{row['goal']:g}"
        lines.append(f"| {row['text']} | {row['ratio']:.3f} | {low:.3f} to {high:.3f} | {goal} |")
    return "\n".join(lines)
