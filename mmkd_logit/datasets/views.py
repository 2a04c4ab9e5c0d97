"""Pictures by number."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Views:
    """Which picture of each sample a batch shows, where augmentation can be numbered.

    Attributes:
        pictures: Hash of all the pictures: of the images and of how a view is made of one.
        samples: How many images there are.
        per_sample: How many views there are of an image, V.
        index: Of the image, in ``[0, samples)`` (N,), int64.
        view: In ``[0, V)`` (N,), int64.
    """

    pictures: str
    samples: int
    per_sample: int
    index: np.ndarray
    view: np.ndarray
