"""The tables together: how many kinds of wrong input are tried, and how often each."""

from collections import Counter

from bad_input import broken, components, fields, tools

TRIPLES = [
    *(row[:3] for row in components.ROWS),
    *(("config", row[0], row[1]) for row in fields.ROWS),
    *(row[:3] for row in tools.ROWS),
    *(row[:3] for row in (*broken.CHECKPOINTS, *broken.DATA, *broken.FILES, *broken.DIVERGING)),
]


def test_there_are_enough_and_all_differ():
    assert len(set(TRIPLES)) >= 150
    twice = [triple for triple, count in Counter(TRIPLES).items() if count > 1]
    assert not twice


def test_no_kind_is_most_of_it():
    kinds = Counter(kind for _, _, kind in set(TRIPLES))
    assert max(kinds.values()) <= 35, kinds.most_common(3)


def test_what_the_issue_names_is_there():
    kinds = {kind for _, _, kind in TRIPLES}
    data = {"missing file", "truncated", "wrong md5", "wrong label range", "empty class"}
    checkpoints = {"other architecture", "other class count", "NaN weights", "html page"}
    misspelt = {"letter missing", "letter too many", "letter wrong", "letters exchanged"}
    logits = {"NaN logits", "infinite logits"}
    assert data | {"grey for colour"} | checkpoints | misspelt | logits <= kinds
