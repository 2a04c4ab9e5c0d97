"""No checkpoint has files deleted elsewhere."""

from pathlib import Path

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmkd_logit.registry import HOOKS


@HOOKS.register_module()
class OwnBestCheckpointHook(Hook):
    """Let the best checkpoint that a resumed one names lie where the run writes its own.

    MMEngine deletes it when a better one comes. A checkpoint of somebody else names a file in
    another place, and so does one whose folder was moved since. ``tools/train.py`` adds this
    hook.

    Example:
        >>> from mmkd_logit.hooks import OwnBestCheckpointHook
        >>> hook = OwnBestCheckpointHook()
    """

    changes_training = False
    priority = "VERY_HIGH"

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Change the names in what was loaded, before MMEngine takes them over."""
        hub = checkpoint.get("message_hub") if isinstance(checkpoint, dict) else None
        info = hub.get("runtime_info") if isinstance(hub, dict) else None
        if not isinstance(info, dict):
            return
        folder = _folder_of_checkpoints(runner)
        for key in [key for key in info if str(key).startswith("best_ckpt") and info[key]]:
            named = Path(info[key])
            if named.resolve().parent != folder.resolve():
                info[key] = str(folder / named.name)


def _folder_of_checkpoints(runner: Runner) -> Path:
    saving = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    out = saving[0].out_dir if saving else None
    folder = Path(runner.work_dir)
    return folder if out in (None, runner.work_dir) else Path(out, folder.name)
