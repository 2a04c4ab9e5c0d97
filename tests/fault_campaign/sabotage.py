"""Products that are broken on purpose, which the campaign must find out."""


def in_place(rank):
    """Write files where they are, as ``open`` does, and do not look whether they are whole."""
    from mmkd_logit.utils import files as _atomic_files

    _atomic_files._open_part = lambda target: (target, open(target, "wb"))  # noqa: SIM115
    _atomic_files._swap = lambda part, target: None
    unseen_damage(rank)


def unseen_damage(rank):
    """Take every checkpoint for whole."""
    from mmkd_logit import checkpoint
    from mmkd_logit.engine import group as together_results
    from mmkd_logit.engine import resume as last_checkpoint
    from mmkd_logit.engine import save as final_checkpoint_hook
    from mmkd_logit.engine import train

    for module in (train, checkpoint, last_checkpoint, together_results, final_checkpoint_hook):
        module.why_damaged = lambda path, only_zip=False: None


def no_random_states(rank):
    """Do not put the random states back."""
    from mmkd_logit.engine import resume as _process_state

    _process_state.restore_random_states = lambda states: None


def no_lock(rank):
    """Let anybody into a work folder."""
    from mmkd_logit.engine import lock as run_lock

    run_lock.fcntl.flock = lambda file, how: None


SABOTAGES = {f.__name__: f for f in (in_place, unseen_damage, no_random_states, no_lock)}
