"""Files that run code where they are read without care, and readers without care."""

import os
import pickle
import tarfile

import numpy as np
import torch
import yaml
from mmengine.config import Config


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __call__(self):
        """So that the result of one call can be called by another."""

    def __reduce__(self):
        return self.reduced


def makes(marker):
    """An object whose pickle makes a folder when it is read."""
    return Calls(os.mkdir, str(marker))


def as_pickle(path, marker):
    path.write_bytes(pickle.dumps(makes(marker)))


def as_checkpoint(path, marker):
    torch.save({"state_dict": {"weight": torch.ones(2)}, "meta": makes(marker)}, path)


def as_legacy_checkpoint(path, marker):
    content = {"state_dict": {"weight": torch.ones(2)}, "meta": makes(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def as_npy(path, marker):
    array = np.empty(3, object)
    array[:] = [makes(marker), 1, 2]
    with open(path, "wb") as file:  # numpy would add an ending
        np.save(file, array, allow_pickle=True)


def as_npz(path, marker, *names):
    array = np.empty(3, object)
    array[:] = [makes(marker), 1, 2]
    with open(path, "wb") as file:
        np.savez(file, **dict.fromkeys(names or ("labels",), array))


def as_yaml(path, marker):
    path.write_text(f"model: !!python/object/apply:os.mkdir ['{marker}']\n")


def as_program(marker):
    """What MMEngine runs when it resumes from a checkpoint with this meta['config']."""
    return f"import os\nos.mkdir({str(marker)!r})\n"


def as_tar(path, outside, mode="w:gz"):
    """An archive with a member beside the folder that it is unpacked to, and a link out of it."""
    path.with_suffix(".member").write_text("escaped")
    with tarfile.open(path, mode) as archive:
        archive.add(path.with_suffix(".member"), f"../{outside}")
    path.with_suffix(".member").unlink()


def read_checkpoint(path):
    torch.load(path, weights_only=False)


def read_pickle(path):
    pickle.loads(path.read_bytes())


def read_numpy(path):
    content = np.load(path, allow_pickle=True)
    if isinstance(content, np.lib.npyio.NpzFile):
        with content:
            return {name: content[name] for name in content.files}
    return content


def read_yaml(path):
    yaml.load(path.read_text(), yaml.Loader)


def read_program(text):
    Config.fromstring(text, file_format=".py")
