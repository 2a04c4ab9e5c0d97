import copy
import json
import os
from pathlib import Path

import pytest
from report_records import LIST, record_of, write_record

from mmkd_logit.lab.report.data import Each, check, read_experiment_files
from mmkd_logit.lab.report.page import build_report

SMALL = record_of(dict(kl=("KL", "", [71.0, None], 74.0)))


def test_sorted_by_scale_and_name(tmp_path):
    for scale, name in (("digits", "a"), (None, "b"), ("cpu", "c"), (None, "a")):
        write_record(tmp_path, record_of({}, name, scale=scale, root=".." if scale else "."))
    found = read_experiment_files(tmp_path / "results")
    assert [each.key for each in found] == ["a", "b", "cpu/c", "digits/a"]
    roots = [each.root for each in found]
    assert roots == [tmp_path / "results"] * 4
    assert {each.root for each in read_experiment_files(tmp_path / "results", tmp_path)} == {
        tmp_path
    }


def test_other_json_is_passed_over(tmp_path):
    results = write_record(tmp_path, record_of({})).parent
    for name, text in dict(a="[]", b="{}", c='{"cells": 1}', d='{"format": 9}', e="3").items():
        results.joinpath(f"{name}.json").write_text(text)
    results.joinpath("folder.json").mkdir()
    results.joinpath("gone.json").symlink_to("nowhere")
    assert [each.key for each in read_experiment_files(results)] == ["table1"]


def test_copies_are_told_apart_by_where_they_lie(tmp_path):
    for place in ("digits/table1.json", "digits-before/table1.json", "digits/copy.json"):
        write_record(tmp_path, record_of({}, scale="digits"), place)
    write_record(tmp_path, record_of({}))
    found = read_experiment_files(tmp_path / "results")
    copies = ("digits/copy.json", "digits/table1.json", "digits-before/table1.json")
    assert [each.key for each in found] == ["table1", *(f"digits/table1 in {c}" for c in copies)]
    assert found[3].record["title"] == "Title of table1 (digits-before/table1.json)"


@pytest.mark.parametrize("way", ["..", "../../project"])
def test_root_is_named_as_the_reader_knows_it(tmp_path, way, monkeypatch):
    real = tmp_path / "project"
    write_record(real, record_of({}, root=way))
    (tmp_path / "link").symlink_to(real)
    (found,) = read_experiment_files(tmp_path / "link" / "results")
    assert found.root.samefile(real)
    assert found.root == (tmp_path / "link" if way == ".." else real)
    monkeypatch.chdir(real)
    assert read_experiment_files("results")[0].root == real


def test_results_that_a_link_leads_to(tmp_path):
    """The way back begins where the link leads."""
    disk, project = tmp_path / "disk", tmp_path / "a" / "project"
    project.mkdir(parents=True)
    write_record(disk, record_of({}, root="../../a/project"))
    (project / "results").symlink_to(disk / "results")
    (found,) = read_experiment_files(project / "results")
    assert found.root == project


def fail(results, root=None):
    with pytest.raises((ValueError, OSError)) as caught:
        read_experiment_files(results, root)
    return str(caught.value)


def test_what_is_no_folder_or_empty(tmp_path):
    assert fail(tmp_path / "none") == f"the folder {tmp_path / 'none'} does not exist"
    assert "holds no experiments" in fail(tmp_path)
    results = write_record(tmp_path, record_of({})).parent
    assert fail(results, tmp_path / "moved") == f"the folder {tmp_path / 'moved'} does not exist"
    assert fail(results / "table1.json").endswith("table1.json does not exist")


@pytest.mark.parametrize("part", [0, 1, 0.5, -2, "deep", "bytes", "digits"])
def test_cut_off(tmp_path, part):
    path = write_record(tmp_path, SMALL)
    text = path.read_bytes()
    odd = dict(deep=b"[" * 100_000, bytes=b'{"format": "\xff"}', digits=b"9" * 5000)
    cut = int(part * len(text)) if part == 0.5 else part
    path.write_bytes(odd[part] if isinstance(part, str) else text[:cut])
    assert fail(path.parent).startswith(f"{path} is not whole JSON (")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (dict(format=2), "has format 2 and this program reads 1"),
        (dict(format="1"), "has format '1' and"),
        (dict(runs=None), "runs is None and not a list"),
        (dict(title=3), "title is 3 and not text"),
        (dict(cells=[]), "cells is [] and not an object"),
        (dict(cells=dict(kl=["KL"])), "cells['kl'] is not the labels of a row and of a column"),
        (dict(cells={}), "metrics[0].cells has 'kl', which cells has not"),
        (dict(runs=["x"]), "runs[0] is 'x' and not an object"),
        (dict(root="\0"), "root '\\x00' is no path"),
        (dict(legend=["S"]), "legend is ['S'] and not an object"),
        (dict(command="python x"), "command is 'python x' and not a list"),
    ],
)
def test_not_as_it_must_be(tmp_path, changed, why):
    path = write_record(tmp_path, SMALL)
    path.write_text(json.dumps({**SMALL, **changed}))
    text = fail(path.parent)
    assert why in text
    assert text.startswith(str(path))
    assert "write it again" in text


def test_missing_field(tmp_path):
    record = copy.deepcopy(SMALL)
    del record["metrics"][0]["cells"]["kl"]["mean"]
    path = write_record(tmp_path, record)
    assert "experiment file: metrics[0].cells['kl'].mean is missing;" in fail(path.parent)


def places(value, way=()):
    """Yield the way to everything in a record."""
    if way:
        yield way
    keys = list(value) if isinstance(value, dict) else ()
    for key in range(len(value)) if isinstance(value, list) else keys:
        yield from places(value[key], (*way, key))


WRONG = [None, "x", -1.5, 10**400, float("nan"), [None], {"x": None}]


def broken(record):
    """Yield a record with one thing missing or something else in its place."""
    for way in places(record):
        for number in range(-1, len(WRONG)):
            changed = copy.deepcopy(record)
            inner = changed
            for key in way[:-1]:
                inner = inner[key]
            if number < 0:
                del inner[way[-1]]
            else:
                inner[way[-1]] = WRONG[number]
            yield way, changed


def test_wrong_things_at_any_place(tmp_path, monkeypatch):
    """Either an error of one line, or a page."""
    monkeypatch.setattr("mmkd_logit.lab.report.page_figures._sha256", lambda path: "0" * 64)
    path = write_record(tmp_path, SMALL)
    errors = []
    for way, record in broken(SMALL):
        path.write_text(json.dumps(record))
        try:
            build_report(path.parent, draw=lambda *_: [])
            errors.append(None)
        except ValueError as error:
            errors.append(str(error))
            named = errors[-1].startswith(f"{path} ") or way[0] in ("format", "cells")
            errors[-1] = errors[-1] if named else f"unnamed\n{errors[-1]}"
    told = [error for error in errors if error]
    assert [error for error in told if "\n" in error] == []
    assert len(errors) > 700
    assert 0.2 < len(told) / len(errors) < 0.8


@pytest.mark.parametrize(
    ("value", "shape", "why"),
    [
        (True, int, "x is True and not a whole number"),
        (False, float, "x is False and not a number"),
        (1, bool, "x is 1 and not true or false"),
        (1.0, int, "x is 1.0 and not a whole number"),
        (None, (float, None), None),
        (None, (dict(a=int), None), None),
        (dict(a="1"), (dict(a=int), None), "x.a is '1' and not a whole number"),
        ("1", (float, None), "x is '1' and not a number or null"),
        (2, float, None),
        (10**400, float, "and not a number"),
        ([1, "a"], [int], "x[1] is 'a' and not a whole number"),
        (dict(b=1), Each(str), "x['b'] is 1 and not text"),
        ({}, {"a?": int}, None),
        (dict(a=None), {"a?": int}, None),
        (dict(a=None), {"a": int}, "x.a is None and not a whole number"),
        ({}, {"a": int}, "x.a is missing"),
        ([], {}, "x is [] and not an object"),
    ],
)
def test_shapes(value, shape, why):
    if why is None:
        return check(value, shape, "x")
    with pytest.raises(ValueError, match="x") as caught:
        check(value, shape, "x")
    assert why in str(caught.value)
    assert len(str(caught.value)) < 120


def test_a_long_value_is_not_repeated_whole():
    with pytest.raises(ValueError, match="xx") as caught:
        check(dict(a="x" * 10_000), Each(int), "it")
    assert len(str(caught.value)) < 100


def test_all_that_is_written_can_be_read(tmp_path):
    path = write_record(tmp_path, record_of(LIST))
    (found,) = read_experiment_files(path.parent)
    assert found.record == record_of(LIST)
    assert found.path == path
    assert os.fspath(found.root) == str(Path(tmp_path))
