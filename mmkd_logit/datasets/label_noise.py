"""Wrong labels around any data set."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import force_full_init

from mmkd_logit.checkpoint import only_safe_globals
from mmkd_logit.registry import DATASETS
from mmkd_logit.utils.arguments import check_flag, check_text

from .draws import NEW_LABEL, WHICH_CHANGE, _Keys, check_seed, check_share, draw, first_of_groups
from .wrapper import SampleWrapper, _SampleTable, gather

# A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; a test compares
# it with the coarse labels in the published file.
CIFAR100_GROUPS = (
    (4, 30, 55, 72, 95),  # aquatic mammals
    (1, 32, 67, 73, 91),  # fish
    (54, 62, 70, 82, 92),  # flowers
    (9, 10, 16, 28, 61),  # food containers
    (0, 51, 53, 57, 83),  # fruit and vegetables
    (22, 39, 40, 86, 87),  # household electrical devices
    (5, 20, 25, 84, 94),  # household furniture
    (6, 7, 14, 18, 24),  # insects
    (3, 42, 43, 88, 97),  # large carnivores
    (12, 17, 37, 68, 76),  # large man-made outdoor things
    (23, 33, 49, 60, 71),  # large natural outdoor scenes
    (15, 19, 21, 31, 38),  # large omnivores and herbivores
    (34, 63, 64, 66, 75),  # medium-sized mammals
    (26, 45, 77, 79, 99),  # non-insect invertebrates
    (2, 11, 35, 46, 98),  # people
    (27, 29, 44, 78, 93),  # reptiles
    (36, 50, 65, 74, 80),  # small mammals
    (47, 52, 56, 59, 96),  # trees
    (8, 13, 48, 58, 90),  # vehicles 1
    (41, 69, 81, 85, 89),  # vehicles 2
)
NEXT_IN_GROUP = {
    fine: group[(place + 1) % len(group)]
    for group in CIFAR100_GROUPS
    for place, fine in enumerate(group)
}


# Reading arrays from files that may be anybody's.


_SUFFIXES = (".npy", ".npz", ".pt", ".pth")
_UNNAMED = ""
_CLEAN = "clean_label"  # in the published files of CIFAR-10N and CIFAR-100N


def read_arrays(
    path: str | Path, only: str | None = None, names: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Read the arrays of a file, of an .npz perhaps some; pickled objects are refused unread."""
    file = Path(path).expanduser()
    allowed = (only,) if only else _SUFFIXES
    if file.suffix not in allowed:
        raise ValueError(f"{path} must be a file of type {', '.join(allowed)}")
    if not file.is_file():
        raise FileNotFoundError(f"the file {path} does not exist")
    try:
        if file.suffix in (".pt", ".pth"):
            arrays = _from_torch(file)
        else:
            arrays = _from_numpy(file, names)
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # a damaged file may fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} is refused: it is damaged, or it holds more than arrays of numbers and could "
            f"run code when read ({reason})"
        ) from None
    if not arrays and not names:
        raise ValueError(f"{path} holds no array")
    return arrays


def _from_numpy(file: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    if file.suffix == ".npy":
        return {_UNNAMED: np.load(file, allow_pickle=False)}
    # Opened here: NumPy leaves a file open that turns out to be no archive.
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if not names or name in names}


def _from_torch(file: Path) -> dict[str, np.ndarray]:
    with only_safe_globals():
        content = torch.load(file, map_location="cpu", weights_only=True)
    named = content.items() if isinstance(content, dict) else [(_UNNAMED, content)]
    arrays = {}
    for name, value in named:
        if isinstance(value, torch.Tensor):
            value = value.detach()
            arrays[str(name)] = (value.double() if value.is_floating_point() else value).numpy()
        elif isinstance(value, (np.ndarray, list, tuple)):
            arrays[str(name)] = np.asarray(value)
    return arrays


def read_labels(
    path: str, key: str | None, clean_key: str | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read labels, and the clean labels where the file has them."""
    arrays = read_arrays(path)
    for name in (key, clean_key):
        if name is not None and name not in arrays:
            if list(arrays) == [_UNNAMED]:
                raise ValueError(f"{path} holds one array without a name; leave out {name!r}")
            raise ValueError(f"{path} has no array {name!r}; it has {', '.join(arrays)}")
    if clean_key is None and _CLEAN in arrays and key != _CLEAN:
        clean_key = _CLEAN
    if key is None:
        names = [name for name in arrays if name != clean_key]
        if len(names) != 1:
            raise ValueError(f"{path} holds {', '.join(arrays)}; say which with key=")
        key = names[0]
    return arrays[key], None if clean_key is None else arrays[clean_key]


# Wrong labels, made or read.


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
    """Return the SHA-256 of N labels as little-endian 64-bit integers."""
    return hashlib.sha256(np.asarray(labels).astype("<i8").tobytes()).hexdigest()


def check_labels(labels: Any, num_classes: int, name: str) -> np.ndarray:
    """Return labels as int64 (N,)."""
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
    """Return a transition matrix as float64 (K, K)."""
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


# A data set with wrong labels.


@DATASETS.register_module()
class NoisyLabelDataset(SampleWrapper):
    """Give the samples of another data set noisy labels.

    ``gt_label`` is the noisy label and ``clean_label`` the true one, before the pipeline in
    ``get_data_info`` and after it in the metainfo of the ``DataSample``. ``metainfo`` says under
    ``label_noise`` what :meth:`LabelNoise.describe` does, from the moment the labels are read;
    MMEngine copies it to the checkpoints as ``meta['dataset_meta']``.

    Rank, worker and order of access change nothing. Runs of several seeds share the labels; tie
    them to the run with ``train_dataloader.dataset.seed=...`` beside ``--seed``.

    Args:
        dataset: Config or instance of the single-label data set with the clean labels.
        kind: See :class:`LabelNoise`, also for the following.
        rate: Share of labels that change.
        seed: Of the noise; 0 where none is given.
        per_class: Whether the rate holds in each class (the default) or overall.
        matrix: For kind ``'transition'``.
        file: For kind ``'file'``.
        key: For kind ``'file'``.
        clean_key: For kind ``'file'``.
        num_classes: K; by default the number of ``classes`` in the metainfo.
        on_test: Allow noise on data for testing.
        lazy_init: Read nothing until needed.

    Raises:
        ValueError: If an argument is wrong, the data set is for testing or noisy already, or its
            labels do not fit.
        FileNotFoundError: If ``file`` or the file of ``matrix`` does not exist.

    Example:
        >>> dataset = NoisyLabelDataset(
        ...     dict(type='mmkd_logit.Digits'), kind='symmetric', rate=0.4)
        >>> wrong = dataset.get_gt_labels() != dataset.get_clean_labels()
        >>> int(wrong.sum()), dataset.metainfo['label_noise']['samples']
        (360, 901)
    """

    def __init__(
        self,
        dataset: Any,
        kind: str,
        rate: float | None = None,
        seed: int | None = None,
        per_class: bool | None = None,
        matrix: Any = None,
        file: str | None = None,
        key: str | None = None,
        clean_key: str | None = None,
        num_classes: int | None = None,
        on_test: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.noise = LabelNoise(kind, rate, seed, per_class, matrix, file, key, clean_key)
        if num_classes is not None and (type(num_classes) is not int or num_classes < 1):
            raise ValueError(f"num_classes must be a positive integer, got {num_classes!r}")
        self.num_classes = num_classes
        check_flag("on_test", on_test)
        check_flag("lazy_init", lazy_init)
        super().__init__(dataset, lazy_init=True)
        self._refuse(on_test)
        if not lazy_init:
            self.full_init()

    def _refuse(self, on_test: bool) -> None:
        for layer in self._layers():
            if isinstance(layer, NoisyLabelDataset):
                raise ValueError("the data set has noisy labels already; noise it once")
            split = str(getattr(layer, "split", ""))
            held_out = split.lower().startswith(("test", "val"))
            if (held_out or layer.test_mode) and not on_test:
                what = f"split {split!r}" if held_out else "test_mode=True"
                raise ValueError(
                    f"{what}: these data are for testing, whose labels stay clean; noise the "
                    "training data, or say on_test=True"
                )

    def _prepare(self) -> None:
        num_classes = self.num_classes or len(self.dataset.metainfo.get("classes") or ())
        if not num_classes:
            raise ValueError("the data set names no classes; say num_classes=K")
        self._clean = gather(self.dataset).labels
        self._noisy = self.noise.apply(self._clean, num_classes)
        self._description = self.noise.describe(self._clean, self._noisy)

    @property
    def metainfo(self) -> dict:
        """The wrapped data set's, and ``label_noise`` once the labels are read."""
        metainfo = super().metainfo
        if self._fully_initialized:
            metainfo["label_noise"] = dict(self._description)
        return metainfo

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return what is known of a sample before the pipeline.

        Args:
            idx: Of this data set.

        Returns:
            The wrapped data set's, with the noisy ``gt_label`` and the ``clean_label``.
        """
        info = super().get_data_info(idx)
        return dict(info, gt_label=int(self._noisy[idx]), clean_label=int(self._clean[idx]))

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Return the noisy labels (N,)."""
        return self._noisy.copy()

    @force_full_init
    def get_clean_labels(self) -> np.ndarray:
        """Return the clean labels (N,)."""
        return self._clean.copy()

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the noisy label of a sample.

        Args:
            idx: Of this data set.
        """
        return [int(self._noisy[idx])]

    def _fetch(self, keys: _Keys) -> dict:
        batch = super()._fetch(keys)
        noisy, clean = (torch.from_numpy(each[keys.idx]) for each in (self._noisy, self._clean))
        samples = replace(batch["data_samples"], gt_label=noisy, clean_label=clean)
        return dict(batch, data_samples=samples)

    def _sample_table(self) -> _SampleTable:
        return gather(self.dataset)._replace(labels=self._noisy, clean=self._clean)
