"""Wrong labels, made or read."""

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from mmkd_logit._checks import check_text

from ._cifar100_groups import NEXT_IN_GROUP
from ._draws import NEW_LABEL, WHICH_CHANGE, check_seed, check_share, draw, first_of_groups
from ._label_file import read_arrays, read_labels

_BY_RATE = ("symmetric", "uniform", "pair", "superclass")
# What each kind needs, and what else it takes.
_NEEDS = {**dict.fromkeys(_BY_RATE, "rate"), "transition": "matrix", "file": "file"}
_TAKES = {
    **dict.fromkeys(_BY_RATE, ("rate", "seed", "per_class")),
    "transition": ("matrix", "seed"),
    "file": ("file", "key", "clean_key"),
}
_ROW_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class LabelNoise:
    """A rule that turns N clean labels into N noisy ones.

    The kinds:

    - ``'symmetric'``: a share ``rate`` of the labels changes to any *other* class, each as
      likely. The share that is wrong afterwards is ``rate``.
    - ``'uniform'``: a share ``rate`` is drawn anew from *all* classes, the own one included,
      which other papers call symmetric too. About ``rate * (K - 1) / K`` is wrong afterwards.
    - ``'pair'``: a share ``rate`` of class c becomes c + 1, of the last class 0.
    - ``'superclass'``: CIFAR-100 only; a share ``rate`` becomes the next fine class of its
      coarse group, the last of the group the first.
    - ``'transition'``: row c of a matrix holds the probabilities of the labels of class c.
    - ``'file'``: labels from a file, in the order of the data set.

    What is drawn for sample i depends on the seed and i alone, and neither on numpy's version nor
    on who asks in which order. Under one seed the labels wrong at a small ``rate`` are wrong
    alike at a larger one.

    Args:
        kind: One of the above.
        rate: Share in [0, 1] of the labels that change (``'uniform'``: that are drawn anew),
            rounded to whole samples.
        seed: Of the draws; 0 where none is given. It is no seed of a run: runs of several seeds
            have the same labels unless told otherwise.
        per_class: Take the share of each class (the default), or of the whole.
        matrix: K x K, or a .npy file of one; each row sums to 1.
        file: .npy, .npz, or .pt with tensors or arrays; a file that could run code is refused.
        key: Which array of the file; may be left out where there is one only.
        clean_key: Which array of the file holds the clean labels, which must be the data set's;
            ``'clean_label'`` is compared without being named.

    Raises:
        ValueError: If the kind is unknown, an argument is wrong, missing or of another kind.

    Example:
        >>> labels = np.repeat(np.arange(10), 20)
        >>> noisy = LabelNoise('symmetric', rate=0.4).apply(labels, num_classes=10)
        >>> float((noisy != labels).mean())
        0.4
    """

    kind: str
    rate: float | None = None
    seed: int | None = None
    per_class: bool | None = None
    matrix: Any = None
    file: str | None = None
    key: str | None = None
    clean_key: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in list(_TAKES):
            close = get_close_matches(str(self.kind), _TAKES, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"kind must be one of {list(_TAKES)}, got {self.kind!r}{hint}")
        takes = _TAKES[self.kind]
        given = [name for name, value in vars(self).items() if value is not None]
        foreign = [name for name in given if name != "kind" and name not in takes]
        if foreign:
            raise ValueError(
                f"kind {self.kind!r} takes {', '.join(takes)}; leave out {', '.join(foreign)}"
            )
        if _NEEDS[self.kind] not in given:
            raise ValueError(f"kind {self.kind!r} needs {_NEEDS[self.kind]}")
        for name in ("file", "key", "clean_key"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        if self.rate is not None:
            check_share("rate", self.rate)
        if self.seed is not None:
            check_seed(self.seed)
        if not isinstance(self.per_class, bool | None):
            raise ValueError(f"per_class must be True or False, got {self.per_class!r}")

    def apply(self, labels: Any, num_classes: int) -> np.ndarray:
        """Return the noisy labels.

        Args:
            labels: Clean labels (N,), integers from 0 to ``num_classes - 1``.
            num_classes: K.

        Returns:
            int64 (N,).

        Raises:
            ValueError: If labels, matrix or file do not fit each other.
            FileNotFoundError: If the file does not exist.
        """
        clean = check_labels(labels, num_classes, "the data set's labels")
        if self.kind == "file":
            return self._from_file(clean, num_classes)
        if self.kind == "transition":
            return self._from_matrix(clean, num_classes)
        return self._by_rate(clean, num_classes)

    def describe(self, clean: np.ndarray, noisy: np.ndarray) -> dict[str, Any]:
        """Say in plain Python values what was done; it fits a checkpoint.

        Args:
            clean: Labels before.
            noisy: Labels after.

        Returns:
            ``kind``, ``rate`` (as asked for), ``realised_rate`` (share of labels that differ),
            ``seed``, ``per_class``, ``file`` (its name), ``key``, ``samples`` and ``sha256``,
            the hash of the noisy labels.
        """
        drawn = self.kind != "file"
        return dict(
            kind=self.kind,
            rate=None if self.rate is None else float(self.rate),
            realised_rate=float(np.mean(clean != noisy)) if len(clean) else 0.0,
            seed=int(self.seed or 0) if drawn else None,
            per_class=self.per_class is not False if self.kind in _BY_RATE else None,
            file=None if self.file is None else Path(self.file).name,
            key=self.key,
            samples=len(noisy),
            sha256=hash_labels(noisy),
        )

    def _by_rate(self, clean: np.ndarray, num_classes: int) -> np.ndarray:
        seed, count = int(self.seed or 0), len(clean)
        groups = np.zeros_like(clean) if self.per_class is False else clean
        assert self.rate is not None
        change = first_of_groups(groups, float(self.rate), seed, WHICH_CHANGE)
        numbers = draw(seed, NEW_LABEL, count)
        if self.kind == "superclass":
            if num_classes != len(NEXT_IN_GROUP):
                raise ValueError(
                    f"kind 'superclass' is CIFAR-100's; here are {num_classes} classes"
                )
            new = np.array([NEXT_IN_GROUP[label] for label in clean.tolist()], dtype=np.int64)
        elif self.kind == "uniform":
            new = (numbers % np.uint64(num_classes)).astype(np.int64)
        elif num_classes < 2:
            raise ValueError(f"kind {self.kind!r} needs 2 classes or more, got {num_classes}")
        elif self.kind == "pair":
            new = (clean + 1) % num_classes
        else:
            step = 1 + (numbers % np.uint64(num_classes - 1)).astype(np.int64)
            new = (clean + step) % num_classes
        return np.where(change, new, clean)

    def _from_matrix(self, clean: np.ndarray, num_classes: int) -> np.ndarray:
        matrix = check_matrix(self.matrix, num_classes)
        # 53 bits make a float in [0, 1); the last edge is 1 whatever the rounding.
        numbers = (draw(int(self.seed or 0), NEW_LABEL, len(clean)) >> np.uint64(11)) * 2.0**-53
        edges = np.cumsum(matrix, axis=1)
        edges /= edges[:, -1:]
        noisy = np.empty_like(clean)
        for label in np.unique(clean):
            members = clean == label
            noisy[members] = np.searchsorted(edges[label], numbers[members], side="right")
        return noisy

    def _from_file(self, clean: np.ndarray, num_classes: int) -> np.ndarray:
        assert self.file is not None
        labels, their_clean = read_labels(self.file, self.key, self.clean_key)
        noisy = check_labels(labels, num_classes, f"the labels of {self.file}")
        if len(noisy) != len(clean):
            raise ValueError(
                f"{self.file} holds {len(noisy)} labels and the data set {len(clean)} samples; to "
                "use a part of the data, put DataSubset around NoisyLabelDataset"
            )
        if their_clean is not None and not np.array_equal(np.ravel(their_clean), clean):
            raise ValueError(
                f"the clean labels of {self.file} are not the data set's: it is for other data, or "
                "for the same data in another order"
            )
        absent = np.setdiff1d(clean, noisy)  # few samples may lose a class by chance
        if 2 * len(absent) > len(np.unique(clean)):
            raise ValueError(
                f"the labels of {self.file} name {len(np.unique(noisy))} classes and the data set "
                f"has {len(np.unique(clean))} (none is {absent[0]}, say); is key={self.key!r} the "
                "array of the labels?"
            )
        return noisy


def hash_labels(labels: np.ndarray) -> str:
    """Return the SHA-256 of N labels as little-endian 64-bit integers.

    Args:
        labels: Integers (N,).
    """
    return hashlib.sha256(np.asarray(labels).astype("<i8").tobytes()).hexdigest()


def check_labels(labels: Any, num_classes: int, name: str) -> np.ndarray:
    """Return labels as int64 (N,).

    Args:
        labels: (N,) or (N, 1).
        num_classes: K.
        name: What to call them in an error.

    Raises:
        ValueError: If they are no integers from 0 to K - 1, or have another shape.
    """
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name} must be one integer a sample, got shape {array.shape}")
    whole = array.dtype.kind in "iu" or (
        array.dtype.kind == "f" and bool(np.all(array == np.floor(array)))
    )
    if array.size and not whole:
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    wrong = array[(array < 0) | (array >= num_classes)]
    if wrong.size:
        raise ValueError(f"{name} must be from 0 to {num_classes - 1}, got {wrong[0]}")
    return array.astype(np.int64)


def check_matrix(matrix: Any, num_classes: int) -> np.ndarray:
    """Return a transition matrix as float64 (K, K).

    Args:
        matrix: Nested lists, an array, or the path of a .npy file.
        num_classes: K.

    Raises:
        ValueError: If it is not K x K, or its rows are no probabilities.
        FileNotFoundError: If the file does not exist.
    """
    if isinstance(matrix, (str, Path)):
        ((_, matrix),) = read_arrays(str(matrix), only=".npy").items()
    try:
        array = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"matrix must be {num_classes} x {num_classes} numbers") from None
    if array.shape != (num_classes, num_classes):
        raise ValueError(f"matrix must be {num_classes} x {num_classes}, got shape {array.shape}")
    if not np.all(array >= 0):
        row = int(np.flatnonzero(~np.all(array >= 0, axis=1))[0])
        raise ValueError(f"matrix must hold probabilities; row {row} has a negative one or NaN")
    sums = array.sum(axis=1)
    if not np.all(np.abs(sums - 1) <= _ROW_SUM_TOLERANCE):
        row = int(np.argmax(np.abs(sums - 1)))
        raise ValueError(f"each row of matrix must sum to 1; row {row} sums to {sums[row]:.6g}")
    return array
