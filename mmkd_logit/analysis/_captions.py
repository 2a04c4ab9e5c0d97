"""What figures say of themselves: of how many samples and seeds, by which protocol, of what."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from ._families import Family
from ._pooled import Pooled
from ._samples import Samples
from .drawing import Drawing
from .style import foot

_SPLITS = dict(train="training set", test="test set", val="validation set")


def split_name(split: str) -> str:
    """Return what a reader calls a split.

    Args:
        split: Its name in files.
    """
    return _SPLITS.get(split, f"split {split}")


def describe(
    samples: Sequence[Samples],
    figure: Figure,
    part: str,
    title: str,
    what: str,
    paper: str,
    seeds: Collection[int],
    numbers: Mapping[str, Any],
    notes: Iterable[str] = (),
    how: str = "",
) -> Drawing:
    """Put a picture of dumps together with what a reader needs to trust it.

    Args:
        samples: What it was drawn from, a split each.
        figure: The picture.
        part: What names of files end in.
        title: Of it, without the networks.
        what: Is drawn, without a full stop.
        paper: What the paper shows there.
        seeds: Those that are drawn.
        numbers: What was drawn or computed.
        notes: What is not there.
        how: Several seeds are drawn.
    """
    family, record = samples[0].family, samples[0].exhibit.record
    key = "/".join(filter(None, [record.get("scale"), record["name"]]))
    missing = list(dict.fromkeys(name for each in samples for name in each.missing))
    left_out = [*family.notes, *([f"not dumped: {', '.join(missing)}"] if missing else []), *notes]
    counted, protocol = _samples_text(samples), _protocol(family, seeds, how)
    foot(figure, f"{key} · {family.title} · {counted}; {protocol}")
    said = [what, counted, protocol, "; ".join(left_out)]
    facts = dict(
        networks=family.title,
        splits={each.split: sorted(each.sizes) for each in samples},
        seeds=sorted(seeds),
        epochs=family.epochs,
    )
    return Drawing(
        name="-".join(filter(None, [key.replace("/", "-"), part, family.tag])),
        title=f"{title}: {family.title}",
        caption=" ".join(f"{text[:1].upper()}{text[1:]}." for text in said if text),
        figure=figure,
        sources=list(dict.fromkeys(path for each in samples for path in each.sources)),
        paper=paper,
        exhibit=key,
        numbers={**facts, **numbers},
    )


def describe_pooled(
    samples: Sequence[Samples],
    found: Mapping[str, Sequence[Pooled]],
    figure: Figure,
    part: str,
    title: str,
    what: str,
    paper: str,
    notes: Iterable[str] = (),
) -> Drawing:
    """Describe densities of all seeds' samples.

    Args:
        samples: What they are of.
        found: By quantity, the rows.
        figure: The picture.
        part: What names of files end in.
        title: Of it, without the networks.
        what: Is drawn, without a full stop.
        paper: What the paper shows there.
        notes: What is not there.
    """
    seeds = sorted({seed for rows in found.values() for row in rows for seed in row.by_seed})
    fewer, strange = dict[str, int](), dict[str, int]()
    for rows in found.values():
        for row in rows:
            if 0 < len(row.by_seed) < len(seeds):
                fewer[row.name] = len(row.by_seed)
            if row.not_finite:
                strange[row.name] = row.not_finite
    texts = [f"{name} has {count} of these seeds" for name, count in fewer.items()]
    texts += [f"{count:,} values by {name} are not finite" for name, count in strange.items()]
    numbers = {
        quantity: {row.name: row.numbers() for row in rows if row.by_seed}
        for quantity, rows in found.items()
    }
    return describe(
        samples, figure, part, title, what, paper, seeds, numbers, [*texts, *notes], ", pooled"
    )


def _protocol(family: Family, seeds: Collection[int], how: str) -> str:
    listed = ", ".join(map(str, sorted(seeds)))
    text = f"seed {listed}" if len(seeds) == 1 else f"{len(seeds)} seeds ({listed}){how}"
    epochs = family.epochs
    if epochs:
        text += f"; {epochs[0]}" + (f" to {epochs[-1]}" if len(epochs) > 1 else "") + " epochs"
    return f"{text}; last epoch, nothing selected"


def _samples_text(samples: Sequence[Samples]) -> str:
    texts = []
    for each in samples:
        sizes = sorted(each.sizes)
        many = f"{sizes[0]:,}" + (f" to {sizes[-1]:,}" if len(sizes) > 1 else "")
        texts.append(f"{split_name(each.split)}, n = {many} samples without augmentation")
    return "; ".join(texts)
