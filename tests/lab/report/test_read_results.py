"""Reading a folder of results: experiments, each run with its row of runs.jsonl."""

import json

import pytest
from report_records import LIST, record_of, row_of, write_record

from mmkd_logit.lab.report.data import read_results


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
    assert found.problems == [
        *(f"runs.jsonl: line {line} is not a results row; remove it" for line in (2, 4, 5)),
        f"{results / 'table1.json'}: runs.jsonl lacks the rows of 1 finished runs",
    ]
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


@pytest.mark.parametrize("way", ["..", "../../project"])
def test_root_is_named_as_the_reader_knows_it(tmp_path, way, monkeypatch):
    real = tmp_path / "project"
    write_record(real, record_of({}, root=way))
    (tmp_path / "link").symlink_to(real)
    (found,) = read_results(tmp_path / "link" / "results").experiments
    assert found.root.samefile(real)
    assert found.root == (tmp_path / "link" if way == ".." else real)
    monkeypatch.chdir(real)
    assert read_results("results").experiments[0].root == real


def test_results_that_a_link_leads_to(tmp_path):
    """The way back begins where the link leads."""
    disk, project = tmp_path / "disk", tmp_path / "a" / "project"
    project.mkdir(parents=True)
    write_record(disk, record_of({}, root="../../a/project"))
    (project / "results").symlink_to(disk / "results")
    assert read_results(project / "results").experiments[0].root == project


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
