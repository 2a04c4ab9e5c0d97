"""Reading a folder of results: experiments, each run with its row of runs.jsonl."""

import functools
import json

import numpy as np
import pytest
from report_records import LIST, record_of, row_of, write_record

from mmkd_logit.lab.report.data import (
    read_dump,
    read_dump_identity,
    read_results,
    read_scalars,
)
from mmkd_logit.lab.report.page import build_report


def test_sorted_by_scale_and_name(tmp_path):
    for scale, name in (("digits", "a"), (None, "b"), ("cpu", "c"), (None, "a")):
        write_record(tmp_path, record_of({}, name, scale=scale, root=".." if scale else "."))
    results = tmp_path / "results"
    found = read_results(results).experiments
    assert [each.key for each in found] == ["a", "b", "cpu/c", "digits/a"]
    assert {each.root for each in found} == {results}
    assert {each.root for each in read_results(results, tmp_path).experiments} == {tmp_path}


def test_each_run_has_its_row(tmp_path):
    record = record_of(LIST)
    path = write_record(tmp_path, record)
    runs = read_results(path.parent).experiments[0].record["runs"]
    assert [run["row"] for run in runs] == [run["row"] for run in record["runs"]]
    assert [run["line"] for run in runs] == [1, 2, 3, None, None, None]


def test_the_newest_row_of_the_weights_counts(tmp_path):
    record = record_of(dict(ce=("CE", "", [70.0], None)))
    results = write_record(tmp_path, record).parent
    again = dict(record["runs"][0]["row"], train={"accuracy/top1": 99.0})
    other = row_of("other", 0, 1.0)
    with open(results / "runs.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in (other, again))
    found = read_results(results)
    (run,) = found.experiments[0].record["runs"]
    assert (run["row"], run["line"]) == (again, 3)
    assert list(found.rows) == [1, 2, 3]


def test_what_is_wrong_with_rows_is_told(tmp_path):
    results = write_record(tmp_path, record_of(LIST)).parent
    path = results / "runs.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{", "", "[" * 100_000, "[1]", lines[2], '{"se']))
    found = read_results(results)
    *rows, lost = found.problems
    assert lost == f"{results / 'table1.json'}: runs.jsonl lacks the rows of 1 finished runs"
    for line, problem in zip((2, 4, 5), rows, strict=True):
        assert problem.startswith(f"runs.jsonl: line {line} is not a results row (")
        assert problem.endswith("); remove it")
    assert list(found.rows) == [1, 6]
    assert [run["line"] for run in found.experiments[0].record["runs"]] == [1, None, 6] + [None] * 3


def test_other_json_is_passed_over(tmp_path):
    results = write_record(tmp_path, record_of({})).parent
    for name, text in dict(a="[]", b="{}", c='{"cells": 1}', d='{"format": 9}', e="3").items():
        results.joinpath(f"{name}.json").write_text(text)
    results.joinpath("folder.json").mkdir()
    results.joinpath("gone.json").symlink_to("nowhere")
    assert [each.key for each in read_results(results).experiments] == ["table1"]


def test_copies_are_told_apart_by_where_they_lie(tmp_path):
    for place in ("digits/table1.json", "digits-before/table1.json", "digits/copy.json"):
        write_record(tmp_path, record_of({}, scale="digits"), place)
    write_record(tmp_path, record_of({}))
    found = read_results(tmp_path / "results").experiments
    copies = ("digits/copy.json", "digits/table1.json", "digits-before/table1.json")
    assert [each.key for each in found] == ["table1", *(f"digits/table1 in {c}" for c in copies)]
    assert found[3].record["title"] == "Title of table1 (digits-before/table1.json)"


def fail(results, root=None):
    with pytest.raises((ValueError, OSError)) as caught:
        read_results(results, root)
    return str(caught.value)


def test_what_is_no_folder_or_empty(tmp_path):
    assert fail(tmp_path / "none") == f"the folder {tmp_path / 'none'} does not exist"
    assert "holds no experiments" in fail(tmp_path)
    results = write_record(tmp_path, record_of({})).parent
    assert fail(results, tmp_path / "moved") == f"the folder {tmp_path / 'moved'} does not exist"
    assert fail(results / "table1.json").endswith("table1.json does not exist")


@pytest.mark.parametrize("content", [b"", b'{"format": 2, ', b"[" * 100_000, b'{"a": "\xff"}'])
def test_cut_off(tmp_path, content):
    path = write_record(tmp_path, record_of({}))
    path.write_bytes(content)
    assert fail(path.parent).startswith(f"{path} is not whole JSON (")


def test_another_version(tmp_path):
    path = write_record(tmp_path, record_of({}, format=1))
    assert fail(path.parent).startswith(f"{path} has format 1 and this program reads 2; let this")


def changes_of(value, at=()):
    """Yield the places in nested JSON, the first item of lists alone."""
    if at:
        yield at
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value[:1])
        for key, inner in items:
            yield from changes_of(inner, (*at, key))


def damaged(value, at, new):
    """A copy with another value at a place; without it for None."""
    value = json.loads(json.dumps(value))
    inner = functools.reduce(lambda each, key: each[key], at[:-1], value)
    if new is None:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value


def test_a_file_damaged_by_hand_is_named_in_one_line(tmp_path):
    """At every place: a value of another type, or nothing."""
    path = write_record(tmp_path, record_of({"mse": LIST["ce"]}))
    whole, told = json.loads(path.read_text()), []
    places = list(changes_of(whole))
    for at in places:
        for new in (["wrong"], {"wrong": 3}, None):
            path.write_text(json.dumps(damaged(whole, at, new)))
            try:
                build_report(path.parent, figures={})
            except ValueError as error:
                told.append(str(error))
    damage = [text for text in told if text.startswith(f"{path} is damaged: ")]
    assert len(damage) > len(places)
    assert all(len(text) < 500 and "write it again" in text for text in damage)
    for text in set(told).difference(damage):  # no experiment any more, or of another format
        assert "holds no experiments" in text or f"{path} has format" in text
    for at, why in (
        (("runs", 0, "files"), "runs[0] has no files"),
        (("metrics", 0, "cells", "mse", "n"), "metrics[0].cells.mse has no n"),
        (("cells", "mse"), "metric test.accuracy/top1 has other cells"),
    ):
        path.write_text(json.dumps(damaged(whole, at, None)))
        assert f"{path} is damaged: {why}; remove it, or let" in fail(path.parent)
    path.write_text(json.dumps(damaged(whole, ("runs", 0, "seed"), "0")))
    assert "is damaged: runs[0].seed is '0'; remove it" in fail(path.parent)


def test_rows_damaged_by_hand_are_problems(tmp_path):
    """A row is left out, or does not matter where it is damaged."""
    results = write_record(tmp_path, record_of(dict(mse=("A", "", [1.0], None)))).parent
    row = json.loads((results / "runs.jsonl").read_text())
    for at in changes_of(row):
        for new in (["wrong"], {"wrong": 3}, "wrong", None):
            (results / "runs.jsonl").write_text(json.dumps(damaged(row, at, new)) + "\n")
            _, problems = build_report(results, figures={})
            for problem in problems:
                assert problem.startswith(("runs.jsonl: line 1 is not", "The files", str(results)))
    (results / "runs.jsonl").write_text(json.dumps({**row, "train_seconds": "12"}) + "\n")
    assert read_results(results).problems[0] == (
        "runs.jsonl: line 1 is not a results row (train_seconds is '12'); remove it"
    )


@pytest.mark.parametrize("line", ["[1]", '{"step": "x", "a": 1}', "[" * 100_000, "\xff"])
def test_scalars_damaged_by_hand(tmp_path, line):
    path = tmp_path / "scalars.json"
    path.write_bytes(line.encode("latin-1") + b'\n{"step": 2, "a": 1}\n')
    with pytest.raises(ValueError, match=rf"{path}:1 is not a line of scalars"):
        read_scalars([path])


@pytest.mark.parametrize("identity", ["[]", '{"method": 3}', '{"method": {}}', "{"])
def test_exported_logits_that_do_not_say_whose_they_are(tmp_path, identity):
    path = tmp_path / "test.npz"
    np.savez(path, logits=np.zeros((1, 2)), identity=identity)
    for read in (read_dump, read_dump_identity):
        with pytest.raises(ValueError, match=rf"{path} is not a whole dump of logits"):
            read(path)


def test_runs_of_the_same_weights_have_rows_of_their_own(tmp_path):
    """They differ in what they were tested on."""
    record = record_of(dict(all=("all", "", [70.0], None), few=("few", "", [80.0], None)))
    for number, run in enumerate(record["runs"]):
        run["weights"] = run["row"]["weights"] = "w" * 64
        run["finished"] = run["row"]["finished"] = f"2026-01-01T00:00:0{number}Z"
    path = write_record(tmp_path, record)
    runs = read_results(path.parent).experiments[0].record["runs"]
    assert [run["row"]["test"]["accuracy/top1"] for run in runs] == [70.0, 80.0]
