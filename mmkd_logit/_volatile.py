"""What two runs of the same thing may differ in."""

# Fields, wherever they stand: in checkpoints, scalars and rows of results. Everything else of a
# run that was cut off and resumed equals that of one that was not, bit for bit.
VOLATILE = frozenset(
    {
        # times: of iterations and lines of log, of a run since it was begun or resumed
        *("time", "data_time", "eta", "timestamp", "finished", "train_seconds", "resumed_at"),
        # memory
        "memory",
        # hosts
        *("device", "launcher"),
        # paths, and words that hold some: names of experiments end with their time
        *("work_dir", "experiment_name", "load_from", "resume", "command", "cfg"),
        *("last_ckpt", "best_ckpt"),
    }
)
