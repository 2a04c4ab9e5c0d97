"""A part of a data set: of each class, of the classes, or by the difficulty of samples."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmkd_logit.registry import DATASETS
from mmkd_logit.utils.arguments import check_choice, check_text

from .draws import WHICH_CLASSES, WHICH_STAY, check_seed, check_share, choose_share
from .label_noise import hash_labels, read_arrays
from .wrapper import SampleTable, SampleWrapper, describe_data

_ARRAYS = ("index", "label", "clean_label", "logits")  # what is read of an export
_ADVICE = "export it with tools/dump_logits.py CONFIG CHECKPOINT --splits train"


@DATASETS.register_module()
class DataSubset(SampleWrapper):
    """Keep a part of another data set, in its order.

    Exactly one of ``per_class``, ``classes`` and ``scores`` decides what stays; nest two for more.
    Labels keep their numbers, so the network keeps its K outputs. Under one seed a smaller share
    of samples or classes is contained in a larger one. ``sample_idx`` remains the index in the
    innermost data set, and ``description['data_subset']`` says what was kept.

    Around a :class:`NoisyLabelDataset` every sample has the label that it has in the whole, and
    classes are those of the noisy labels; inside one, noise is drawn for the part.

    Args:
        dataset: Config or instance of a single-label data set.
        per_class: Share of the samples of each class.
        classes: Share of the K classes, or a list of class numbers.
        scores: File of the teacher's logits of the training samples, by which these are ranked:
            the ``WORK_DIR/logits/train.npz`` that ``tools/train.py --dump-logits train`` or
            ``tools/dump_logits.py`` writes. Of N samples, those of ``dataset`` among them, it
            holds ``index``, ``label`` and ``clean_label`` (N,) and ``logits`` (N, K).
        by: ``'entropy'``, of the softmax of the logits in nats, or ``'tld'``, the top-logit
            difference: the logit of the label less the largest other.
        quantiles: The part of the ranking by that measure, from the lowest, that stays;
            ``(0, 0.5)`` and ``(0.5, 1)`` share no sample and leave none out.
        seed: Of ``per_class`` and of a share of ``classes``; 0 where none is given.
        lazy_init: Read nothing until needed.

    Raises:
        ValueError: If an argument is wrong, nothing stays, or ``scores`` misses an array or a
            sample or has other labels.
        FileNotFoundError: If ``scores`` does not exist.

    Example:
        >>> part = DataSubset(dict(type='mmkd_logit.Digits'), per_class=0.1)
        >>> len(part), len(part.dataset)
        (90, 901)
    """

    def __init__(
        self,
        dataset: Any,
        per_class: float | None = None,
        classes: Any = None,
        scores: Any = None,
        by: Any = None,
        quantiles: Any = None,
        seed: int | None = None,
        lazy_init: bool = False,
    ) -> None:
        rules = dict(per_class=per_class, classes=classes, scores=scores)
        given = [name for name, value in rules.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"say exactly one of {', '.join(rules)}, got {' and '.join(given) or 'none'}; "
                "nest two DataSubset for more"
            )
        (self.rule,) = given
        by_list = isinstance(classes, (list, tuple))
        if self.rule == "scores":
            check_text("scores", scores, "the name of a .npz file")
            check_choice("by", by, ("entropy", "tld"))
            quantiles = _check_quantiles(quantiles)
        elif by is not None or quantiles is not None:
            raise ValueError("by and quantiles go with scores")
        elif not by_list:
            check_share(self.rule, rules[self.rule])
        if seed is not None and (by_list or scores is not None):
            raise ValueError("nothing is drawn here; leave out seed")
        self.per_class, self.classes, self.scores = per_class, classes, scores
        self.by, self.quantiles, self.seed = by, quantiles, check_seed(seed)
        super().__init__(dataset, lazy_init)

    def _prepare(self) -> None:
        table = self._table
        wanted = np.empty(0, dtype=np.int64)  # classes that must not be empty
        if self.per_class is not None:
            keep = choose_share(table.labels, self.per_class, self.seed, WHICH_STAY)
            wanted = table.labels
        elif self.classes is not None:
            wanted = self._chosen_classes()
            keep = np.isin(table.labels, wanted)
        else:
            keep = self._by_score(table, self.scores, self.by)
        self._kept = np.flatnonzero(keep)
        what = f"{self.rule}={getattr(self, self.rule)!r}"
        if not len(self._kept):
            raise ValueError(f"{what} keeps no sample of {len(keep)}; ask for more")
        lost = np.setdiff1d(wanted, table.labels[keep])
        if len(lost):
            size = int((table.labels == lost[0]).sum())
            least = f"; take {0.5 / size:.3g} or more" if size else ""
            raise ValueError(
                f"{what} keeps no sample of class {lost[0]}, of which the data set has {size}"
                f"{least}, or leave the class out with classes="
            )
        self._description["data_subset"] = dict(
            per_class=self.per_class,
            classes=list(self.classes) if isinstance(self.classes, tuple) else self.classes,
            by=self.by,
            quantiles=self.quantiles,
            seed=self.seed,
            samples=len(self._kept),
            sha256=hash_labels(table.identity[self._kept]),
            within=describe_data(self.dataset).get("data_subset"),
        )

    def _chosen_classes(self) -> np.ndarray:
        names = self.dataset.metainfo.get("classes")
        if names is None:
            raise ValueError("the data set names no classes; wrap one that does")
        if not isinstance(self.classes, (list, tuple)):
            one_group = np.zeros(len(names), dtype=np.int64)
            return np.flatnonzero(choose_share(one_group, self.classes, self.seed, WHICH_CLASSES))
        wrong = [c for c in self.classes if type(c) is not int or not 0 <= c < len(names)]
        if wrong or len(set(self.classes)) != len(self.classes):
            raise ValueError(
                f"classes must be different integers from 0 to {len(names) - 1}, got "
                f"{list(self.classes)}"
            )
        return np.array(self.classes, dtype=np.int64)

    def _by_score(self, table: SampleTable, scores: str, by: str) -> np.ndarray:
        arrays = read_logits(scores)
        index, order = np.unique(arrays["index"], return_index=True)
        if len(index) < len(arrays["index"]):
            raise ValueError(f"{scores}: index must name each sample once; {_ADVICE}")
        absent = np.setdiff1d(table.identity, index)
        if len(absent):
            raise ValueError(
                f"{scores} has {len(index)} samples and lacks {len(absent)} of the data set's "
                f"{len(table.identity)}, such as number {absent[0]}; {_ADVICE}, of a CONFIG that "
                "trains on all of them"
            )
        rows = order[np.searchsorted(index, table.identity)]
        if not np.array_equal(arrays["clean_label"][rows], table.clean):
            raise ValueError(
                f"the labels of {scores} are not the data set's; {_ADVICE}, of a CONFIG that "
                "trains on these data"
            )
        values = sample_difficulty(arrays["logits"], arrays["label"], by)[rows]
        if not np.isfinite(values).all():
            raise ValueError(
                f"{scores}: {by} must be finite numbers; take a checkpoint from before "
                "training diverged"
            )
        low, high = np.floor(np.array(self.quantiles) * len(values) + 0.5 + 1e-9).astype(int)
        keep = np.zeros(len(values), dtype=bool)
        keep[np.argsort(values, kind="stable")[low:high]] = True
        return keep


def _check_quantiles(quantiles: Any) -> list[float]:
    if not isinstance(quantiles, (list, tuple)) or len(quantiles) != 2:
        raise ValueError(f"quantiles must be (low, high), got {quantiles!r}")
    low, high = (check_share("a quantile", value) for value in quantiles)
    if low >= high:
        raise ValueError(f"quantiles must be (low, high) with low < high, got {quantiles!r}")
    return [low, high]


def read_logits(path: str | Path) -> dict[str, np.ndarray]:
    """Read what ranks N samples from an export of logits, and check its shapes."""
    try:
        arrays = read_arrays(path, (".npz",), _ARRAYS)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; {_ADVICE}") from None
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}; {_ADVICE}")
    logits, label = arrays["logits"], arrays["label"]
    right = logits.ndim == 2 and logits.dtype.kind == "f"
    for name in ("index", "label", "clean_label"):
        column = arrays[name]
        right = right and column.shape == logits.shape[:1] and column.dtype.kind in "iu"
    if not right or ((label < 0) | (label >= logits.shape[1])).any():
        found = ", ".join(f"{name} {arrays[name].dtype} {arrays[name].shape}" for name in _ARRAYS)
        raise ValueError(
            f"{path}: logits must be floats (N, K), index and clean_label N integers and label N "
            f"integers from 0 to K - 1, got {found}; {_ADVICE}"
        )
    return arrays


def sample_difficulty(logits: np.ndarray, label: np.ndarray, by: str) -> np.ndarray:
    """Return the entropy or the top-logit difference of N predictions, in float64."""
    values, at_a_time = np.empty(len(logits)), 2**12  # rows whose float64 copies are held
    for begin in range(0, len(logits), at_a_time):
        rows = slice(begin, begin + at_a_time)
        each = torch.from_numpy(logits[rows].astype(np.float64))
        if by == "entropy":
            measure = torch.special.entr(each.softmax(1)).sum(1)
        else:
            column = torch.from_numpy(label[rows].astype(np.int64))[:, None]
            others = each.scatter(1, column, -torch.inf).amax(1)
            measure = each.gather(1, column)[:, 0] - others
        values[rows] = measure.numpy()
    return values
