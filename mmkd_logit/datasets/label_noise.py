"""Wrong labels around any data set."""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import force_full_init

from mmkd_logit.checkpoint import only_safe_globals
from mmkd_logit.registry import DATASETS
from mmkd_logit.utils.arguments import check_count, check_flag, check_text, did_you_mean, first_line

from .draws import NEW_LABEL, WHICH_CHANGE, Keys, check_seed, check_share, choose_share, draw, unit
from .wrapper import SampleWrapper, layers

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

# The kinds of noise: functions of the rule, the clean labels (N,) and the number of classes K.


def _symmetric(rule: "LabelNoise", clean: np.ndarray, num_classes: int) -> np.ndarray:
    step = 1 + (rule.draw(len(clean)) % np.uint64(num_classes - 1)).astype(np.int64)
    return rule.change(clean, (clean + step) % num_classes)


def _uniform(rule: "LabelNoise", clean: np.ndarray, num_classes: int) -> np.ndarray:
    return rule.change(clean, (rule.draw(len(clean)) % np.uint64(num_classes)).astype(np.int64))


def _pair(rule: "LabelNoise", clean: np.ndarray, num_classes: int) -> np.ndarray:
    return rule.change(clean, (clean + 1) % num_classes)


def _superclass(rule: "LabelNoise", clean: np.ndarray, num_classes: int) -> np.ndarray:
    if num_classes != 100:
        raise ValueError(f"kind 'superclass' is CIFAR-100's; here are {num_classes} classes")
    groups = np.array(CIFAR100_GROUPS)
    next_in_group = np.empty(100, dtype=np.int64)
    next_in_group[groups] = np.roll(groups, -1, axis=1)
    return rule.change(clean, next_in_group[clean])


def _transition(rule: "LabelNoise", clean: np.ndarray, num_classes: int) -> np.ndarray:
    matrix = check_matrix(rule.matrix, num_classes)
    numbers = unit(rule.draw(len(clean)))
    edges = np.cumsum(matrix, axis=1)
    edges /= edges[:, -1:]  # the last edge is 1 whatever the rounding
    noisy = np.empty_like(clean)
    for label in np.unique(clean):
        members = clean == label
        noisy[members] = np.searchsorted(edges[label], numbers[members], side="right")
    return noisy


def _file(rule: "LabelNoise", clean: np.ndarray, num_classes: int) -> np.ndarray:
    assert rule.file is not None
    labels, their_clean = read_labels(rule.file, rule.key, rule.clean_key)
    noisy = check_labels(labels, num_classes, f"the labels of {rule.file}")
    if len(noisy) != len(clean):
        raise ValueError(
            f"{rule.file} holds {len(noisy)} labels and the data set {len(clean)} samples; to use "
            "a part of the data, put DataSubset around NoisyLabelDataset"
        )
    if their_clean is not None and not np.array_equal(np.ravel(their_clean), clean):
        raise ValueError(
            f"the clean labels of {rule.file} are not the data set's: it is for other data, or for "
            "the same data in another order"
        )
    absent = np.setdiff1d(clean, noisy)  # few samples may lose a class by chance
    if 2 * len(absent) > len(np.unique(clean)):
        raise ValueError(
            f"the labels of {rule.file} name {len(np.unique(noisy))} classes and the data set has "
            f"{len(np.unique(clean))} (none is {absent[0]}, say); is key={rule.key!r} the array of "
            "the labels?"
        )
    return noisy


_BY_RATE = ("rate", "seed", "per_class")
# Each kind with its function and the arguments of LabelNoise that it takes; it needs the first.
KINDS: dict[str, tuple[Callable[["LabelNoise", np.ndarray, int], np.ndarray], tuple[str, ...]]] = {
    "symmetric": (_symmetric, _BY_RATE),
    "uniform": (_uniform, _BY_RATE),
    "pair": (_pair, _BY_RATE),
    "superclass": (_superclass, _BY_RATE),
    "transition": (_transition, ("matrix", "seed")),
    "file": (_file, ("file", "key", "clean_key")),
}


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

    What is drawn for sample i depends on the seed and i alone, not on NumPy's version or the order
    of access. Under one seed the labels wrong at a small ``rate`` are the same wrong ones at a
    larger one.

    Args:
        kind: One of the above.
        rate: Share in [0, 1] of the labels that change (``'uniform'``: that are drawn anew),
            rounded to whole samples of the whole data.
        seed: Of the draws; 0 where none is given. It is not the seed of a run: runs of several
            seeds have the same labels.
        per_class: Take the share of each class (the default), as nearly as whole samples allow,
            or of the whole.
        matrix: K x K, or a .npy file of one; each row sums to 1.
        file: .npy, .npz, or .pt with tensors or arrays; a file that could run code is refused.
        key: Which array of the file; may be left out where there is only one.
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
        if self.kind not in list(KINDS):
            hint = did_you_mean(self.kind, KINDS)
            raise ValueError(f"kind must be one of {list(KINDS)}, got {self.kind!r}{hint}")
        _, takes = KINDS[self.kind]
        given = [name for name, value in vars(self).items() if value is not None]
        foreign = [name for name in given if name not in ("kind", *takes)]
        if foreign:
            raise ValueError(
                f"kind {self.kind!r} takes {', '.join(takes)}; leave out {', '.join(foreign)}"
            )
        if takes[0] not in given:
            raise ValueError(f"kind {self.kind!r} needs {takes[0]}")
        for name in given:
            if name in ("file", "key", "clean_key"):
                check_text(name, getattr(self, name))
        if self.rate is not None:
            check_share("rate", self.rate)
        if self.per_class is not None:
            check_flag("per_class", self.per_class)
        check_seed(self.seed)

    def apply(self, labels: Any, num_classes: int) -> np.ndarray:
        """Return the noisy labels (N,), int64, of N clean ones from 0 to ``num_classes - 1``."""
        clean = check_labels(labels, num_classes, "the data set's labels")
        if num_classes < 2:
            raise ValueError(f"kind {self.kind!r} needs 2 classes or more, got {num_classes}")
        function, _ = KINDS[self.kind]
        return function(self, clean, num_classes)

    def draw(self, count: int) -> np.ndarray:
        """Return a uint64 random number for each sample, from which its new label follows."""
        return draw(check_seed(self.seed), NEW_LABEL, count)

    def change(self, clean: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Return the new labels for a share ``rate`` of the samples, the clean ones elsewhere."""
        groups = np.zeros_like(clean) if self.per_class is False else clean
        share = check_share("rate", self.rate)
        chosen = choose_share(groups, share, check_seed(self.seed), WHICH_CHANGE, exact=True)
        return np.where(chosen, new, clean)

    def describe(self, clean: np.ndarray, noisy: np.ndarray) -> dict[str, Any]:
        """Describe the noise in plain values, as checkpoints keep it.

        ``realised_rate`` is the share of labels that differ, ``file`` the name alone, ``sha256``
        the hash of the noisy labels.
        """
        _, takes = KINDS[self.kind]
        return dict(
            kind=self.kind,
            rate=None if self.rate is None else float(self.rate),
            realised_rate=float(np.mean(clean != noisy)) if len(clean) else 0.0,
            seed=check_seed(self.seed) if "seed" in takes else None,
            per_class=self.per_class is not False if "per_class" in takes else None,
            file=None if self.file is None else Path(self.file).name,
            key=self.key,
            samples=len(noisy),
            sha256=hash_labels(noisy),
        )


def hash_labels(labels: np.ndarray) -> str:
    """Return the SHA-256 of N labels as little-endian 64-bit integers."""
    return hashlib.sha256(np.asarray(labels).astype("<i8").tobytes()).hexdigest()


def check_labels(labels: Any, num_classes: int, name: str) -> np.ndarray:
    """Return labels as int64 (N,)."""
    array = np.asarray(labels)
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1:
        raise ValueError(f"{name} must be one integer a sample, got shape {array.shape}")
    whole = array.dtype.kind in "iu" or (array.dtype.kind == "f" and (array % 1 == 0).all())
    if array.size and not whole:
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    wrong = array[(array < 0) | (array >= num_classes)]
    if wrong.size:
        raise ValueError(f"{name} must be from 0 to {num_classes - 1}, got {wrong[0]}")
    return array.astype(np.int64)


def check_matrix(matrix: Any, num_classes: int) -> np.ndarray:
    """Return a transition matrix as float64 (K, K)."""
    if isinstance(matrix, (str, Path)):
        (matrix,) = read_arrays(matrix, (".npy",)).values()
    try:
        array = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"matrix must be {num_classes} x {num_classes} numbers") from None
    if array.shape != (num_classes, num_classes):
        raise ValueError(f"matrix must be {num_classes} x {num_classes}, got shape {array.shape}")
    for row, (values, total) in enumerate(zip(array, array.sum(axis=1), strict=True)):
        if not (values >= 0).all():
            raise ValueError(f"matrix must hold probabilities; row {row} has a negative one or NaN")
        if not abs(total - 1) <= 1e-6:
            raise ValueError(f"each row of matrix must sum to 1; row {row} sums to {total:.6g}")
    return array


# Reading arrays from files of any origin.

_UNNAMED = ""
_CLEAN = "clean_label"  # in the published files of CIFAR-10N and CIFAR-100N


def read_arrays(
    path: str | Path,
    suffixes: Collection[str] = (".npy", ".npz", ".pt", ".pth"),
    names: Collection[str] | None = None,
) -> dict[str, np.ndarray]:
    """Read the arrays of a file, of an .npz perhaps some; pickled objects are refused unread."""
    file = Path(path).expanduser()
    if file.suffix not in suffixes:
        raise ValueError(f"{path} must be a file of type {', '.join(suffixes)}")
    if not file.is_file():
        raise FileNotFoundError(f"the file {path} does not exist")
    try:
        if file.suffix in (".pt", ".pth"):
            arrays = _read_torch(file)
        elif file.suffix == ".npy":
            arrays = {_UNNAMED: np.load(file, allow_pickle=False)}
        else:
            # NumPy would leave a file of its own open that turns out to be no archive.
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                wanted = [name for name in archive.files if names is None or name in names]
                arrays = {name: archive[name] for name in wanted}
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # a damaged file may fail in any way
        raise ValueError(
            f"{path} is refused: it is damaged, or it holds more than arrays of numbers and could "
            f"run code when read ({first_line(error)})"
        ) from None
    if not arrays and names is None:
        raise ValueError(f"{path} holds no array")
    return arrays


def _read_torch(file: Path) -> dict[str, np.ndarray]:
    with only_safe_globals():
        content = torch.load(file, map_location="cpu", weights_only=True)
    named = content.items() if isinstance(content, dict) else [(_UNNAMED, content)]
    arrays = {}
    for name, value in named:
        if isinstance(value, torch.Tensor):
            value = value.detach()
            # NumPy has no bfloat16.
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


@DATASETS.register_module()
class NoisyLabelDataset(SampleWrapper):
    """Give the samples of another data set noisy labels.

    ``gt_label`` is the noisy label and ``clean_label`` the true one, before the pipeline in
    ``get_data_info`` and after it in the metainfo of the ``DataSample``. ``description`` holds
    under ``label_noise`` what :meth:`LabelNoise.describe` returns, once the labels are read;
    :class:`LabelNoiseHook` keeps it in checkpoints.

    Rank, worker and order of access change nothing. Runs of several seeds share the labels; tie
    them to the run with ``train_dataloader.dataset.seed=...`` beside ``--seed``.

    Args:
        dataset: Config or instance of the single-label data set with the clean labels.
        kind, rate, seed, per_class, matrix, file, key, clean_key: See :class:`LabelNoise`.
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
        >>> int(wrong.sum()), dataset.description['label_noise']['samples']
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
        if num_classes is not None:
            check_count("num_classes", num_classes)
        self.num_classes = num_classes
        self.on_test = check_flag("on_test", on_test)
        super().__init__(dataset, lazy_init)

    def _check_dataset(self) -> None:
        super()._check_dataset()
        for layer in layers(self.dataset):
            if isinstance(layer, NoisyLabelDataset):
                raise ValueError("the data set has noisy labels already; noise it once")
            split = str(getattr(layer, "split", ""))
            held_out = split.lower().startswith(("test", "val"))
            if (held_out or getattr(layer, "test_mode", False)) and not self.on_test:
                what = f"split {split!r}" if held_out else "test_mode=True"
                raise ValueError(
                    f"{what}: these data are for testing, whose labels stay clean; noise the "
                    "training data, or say on_test=True"
                )

    def _prepare(self) -> None:
        num_classes = self.num_classes or len(self.dataset.metainfo.get("classes") or ())
        if not num_classes:
            raise ValueError("the data set names no classes; say num_classes=K")
        clean = self._table.labels
        noisy = self.noise.apply(clean, num_classes)
        self._table = self._table._replace(labels=noisy, clean=clean)
        self._description = dict(label_noise=self.noise.describe(clean, noisy))

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return the wrapped data set's, with the noisy ``gt_label`` and the ``clean_label``."""
        noisy, clean, _ = (int(column[self._kept[idx]]) for column in self._table)
        return dict(super().get_data_info(idx), gt_label=noisy, clean_label=clean)

    @force_full_init
    def get_clean_labels(self) -> np.ndarray:
        """Return the clean labels (N,)."""
        return self.table().clean

    def _fetch(self, keys: Keys) -> dict:
        batch, rows = super()._fetch(keys), self._kept[keys.idx]
        noisy, clean, _ = (torch.from_numpy(column[rows]) for column in self._table)
        samples = replace(batch["data_samples"], gt_label=noisy, clean_label=clean)
        return dict(batch, data_samples=samples)
