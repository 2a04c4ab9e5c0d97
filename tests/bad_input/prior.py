"""A finished run, whose files no wrong word and no broken file may change."""

from pathlib import Path

import torch
from commands import Tiny, folder_of, make_workplace, train

from mmkd_logit.engine.lock import LOCK

RESULTS = "runs.jsonl"


class Prior:
    """A teacher and a student trained by tools/train.py in the current folder.

    Attributes:
        words: What the tables' words stand for.
    """

    def __init__(self, folder):
        make_workplace(folder)
        tiny = Tiny(folder)
        train(tiny.teacher)
        train(tiny.student, "--results", RESULTS)
        self.work_dir = folder_of(tiny.student)
        self.tiny = tiny
        self.words = dict(
            student=tiny.student,
            kd=tiny.kd,
            checkpoint=str(self.work_dir / "final.pth"),
            epoch=str(self.work_dir / "epoch_1.pth"),
            teacher=str(folder_of(tiny.teacher) / "final.pth"),
        )
        self._write_wrong_files(tiny)

    def _write_wrong_files(self, tiny):
        texts = {
            "a_file": "",
            "settings.json": '{"settings": "mine"}',
            "empty.py": "x = 1\n",
            "lone.py": f"_base_ = './{tiny.student}'\nauto_scale_lr = None\n",
            "unseen.py": f"_base_ = './{tiny.student}'\ndefault_hooks = dict(visualization=None)\n",
            "lost.py": f"_base_ = './{tiny.kd}'\n"
            "model = dict(teacher=dict(checkpoint='work_dirs/lost/seed0/final.pth'))\n",
            "one.txt": f"{tiny.kd}\n",
            "two.txt": f"{tiny.kd}\n{tiny.kd} --work-dir w --cfg-options model.alpha=0.5\n",
            "wrong.txt": f"{tiny.kd}\n{tiny.kd} --sead 1\n",
            "quotes.txt": f"{tiny.kd} --work-dir 'a\n",
            "rows.jsonl": '{"config": "configs/wrn/wrn28-4.py"}\n',
        }
        for name, text in texts.items():
            Path(name).write_text(text)
        for name in ("folder.pkl", "folder.npz", "results", "damaged"):
            Path(name).mkdir()
        Path("damaged", "table1.json").write_text('{"format": 1, "name": "table1"')
        self.words["lost"] = "lost.py"

    def files(self):
        """Return what changes when a file is written, of each but links and locks, by name."""
        found = {}
        for path in sorted(Path().rglob("*")):
            if path.name == LOCK or not path.is_file():
                continue
            if not any(each.is_symlink() for each in (path, *path.parents)):
                of = path.stat()
                found[str(path)] = (of.st_ino, of.st_size, of.st_mtime_ns)
        return found

    def weights(self, name="checkpoint"):
        """Return what a checkpoint holds."""
        return torch.load(self.words[name], map_location="cpu", weights_only=False)
