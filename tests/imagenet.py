"""An ImageNet-style folder made of a few real JPEGs."""

from pathlib import Path

import numpy as np


def unpack(sample, root, classes=1000):
    """Write train/WNID/WNID_0.JPEG and the same in val/, one image for each class.

    Args:
        sample: npz with the files' bytes one after the other in ``data``, where each begins and
            ends in ``offsets``, and their ``wnids``.
        root: Folder to write to.
        classes: How many; mmpretrain's data set wants all 1000.
    """
    with np.load(sample) as content:
        data, offsets, wnids = (content[key] for key in ("data", "offsets", "wnids"))
    for i, wnid in enumerate(wnids[:classes]):
        for split in ("train", "val"):
            folder = Path(root, split, str(wnid))
            folder.mkdir(parents=True)
            image = data[offsets[i] : offsets[i + 1]].tobytes()
            (folder / f"{wnid}_0.JPEG").write_bytes(image)
