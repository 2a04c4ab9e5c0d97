import hashlib
import os
from pathlib import Path
from urllib.parse import unquote

import pytest

from mmkd_logit.lab.report.page_figures import Files, Names


@pytest.fixture
def place(tmp_path):
    """A project with results in it, and a secret beside it."""
    (tmp_path / "secret.txt").write_text("secret")
    root = tmp_path / "project"
    (root / "results").mkdir(parents=True)
    (root / "work_dirs").mkdir()
    (root / "work_dirs/train.log").write_text("log")
    return root


def test_links_are_relative_and_lead_there(place):
    files = Files(place / "results", place / "results")
    assert files.href("work_dirs/train.log", place) == "../work_dirs/train.log"
    assert files.href(place / "work_dirs/train.log", place) == "../work_dirs/train.log"
    assert files.href("results/../work_dirs/./train.log", place) == "../work_dirs/train.log"
    assert files.href("work_dirs/none.log", place) is None
    assert files.href("work_dirs", place) is None


def test_of_folders_seen_from_the_current_one(place, monkeypatch):
    monkeypatch.chdir(place)
    files = Files(Path("results/sub"), Path("results"))
    assert files.href("work_dirs/train.log", Path()) == "../../work_dirs/train.log"


@pytest.mark.parametrize(
    "path", ["../secret.txt", "work_dirs/../../secret.txt", "{above}/secret.txt", "/etc/passwd"]
)
def test_no_link_leaves_its_folder(place, path):
    path = path.format(above=place.parent)
    assert (place / path).is_file()
    files = Files(place / "results", place / "results")
    assert files.href(path, place) is None
    assert files.link("log", path, place) == dict(label=f"log: {path}", href=None, exists=True)
    assert files.href("secret.txt", place.parent) == "../../secret.txt"  # there it is inside


def test_a_way_back_through_a_link_is_the_readers(place):
    """A browser goes back by names, so that is where a link must lead."""
    (place / "work_dirs/far").symlink_to(place.parent, target_is_directory=True)
    files = Files(place / "results", place / "results")
    assert files.href("work_dirs/far/../secret.txt", place) is None
    assert files.href("work_dirs/far/../train.log", place) == "../work_dirs/train.log"
    # Runs on another disk: the reader put the link there.
    assert files.href("work_dirs/far/secret.txt", place) == "../work_dirs/far/secret.txt"


def test_a_page_elsewhere_has_no_links(place, tmp_path):
    files = Files(tmp_path / "pages", place / "results")
    assert files.href("work_dirs/train.log", place) is None
    assert files.link("log", "work_dirs/train.log", place) == dict(
        label="log: work_dirs/train.log", href=None, exists=True
    )


def test_results_apart_from_the_runs(place, tmp_path):
    results = tmp_path / "elsewhere"
    (results / "figures").mkdir(parents=True)
    (results / "figures/a.png").write_text("x")
    files = Files(results, results)
    assert files.href("work_dirs/train.log", place) is None
    assert files.href("figures/a.png", results) == "figures/a.png"


@pytest.mark.parametrize(
    "name",
    ["javascript:alert(1)", 'a"b<c>.log', "100%.log", "a b#c?d.log", "ü.log", "\udcff"],
)
def test_odd_names_are_quoted(place, name):
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    href = Files(place, place / "results").href(path.relative_to(place), place)
    assert not set(href) & set("\"<>:?# '")
    assert href.lstrip("/") == href
    assert unquote(href, errors="surrogateescape") == os.path.relpath(path, place)


@pytest.mark.parametrize("name", ["\0", "a\0b", "x" * 5000, "\ud800", ""])
def test_what_is_no_name_is_not_there(place, name):
    files = Files(place / "results", place / "results")
    assert files.href(name, place) is None
    assert files.describe([name], place)[0]["sha256"] is None
    assert files.link("log", name, place) == dict(
        label=f"log (gone: {name})", href=None, exists=False
    )


def test_what_files_held(place):
    files = Files(place / "results", place / "results")
    path = "work_dirs/train.log"
    there, gone = files.describe([path, "none", path], place)
    expected = hashlib.sha256(b"log").hexdigest()
    assert there == dict(path=path, href=f"../{path}", sha256=expected)
    assert gone == dict(path="none", href=None, sha256=None)


def test_a_file_that_cannot_be_read_has_no_hash(place, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("no")

    monkeypatch.setattr("builtins.open", refuse)
    files = Files(place / "results", place / "results")
    assert files.describe(["work_dirs/train.log"], place)[0]["sha256"] is None


def test_names_are_handed_out_once():
    names = Names()
    given = [names(text) for text in ("a b", "a-b", "A/B", "…", "", '"><x', "x" * 300)]
    assert given == ["a-b", "a-b-2", "A-B-3", "x", "x-2", "x-3", "x" * 120]
    assert [names(".."), names("../..")] == ["x-4", "x-5"]
