"""Arguments and options that no row of the tables gives a wrong value, and why."""

GIVEN = "the Runner gives it, no user does"
THEIRS = "torch's DistributedDataParallel takes it; the Runner wraps the model, and torch says"
UNREAD = "this data set reads no files, so nothing looks at it"
FLAG = "a flag without a value: it is there or not"

ARGUMENTS = {
    **{("StudentGroupDDP", name): GIVEN for name in ("module", "device_ids", "broadcast_buffers")},
    **{
        ("StudentGroupDDP", name): THEIRS
        for name in (
            *("detect_anomalous_params", "output_device", "dim", "init_sync", "process_group"),
            *("bucket_cap_mb", "check_reduction", "gradient_as_bucket_view", "static_graph"),
            *("delay_all_reduce_named_params", "param_to_hook_all_reduce", "mixed_precision"),
            *("device_mesh", "skip_all_reduce_unused_params", "bucket_cap_mb_list"),
            *("batched_grad_copy", "forward_sync_buffers", "find_unused_parameters"),
        )
    },
    **{
        (name, argument): GIVEN
        for name in ("ResumableEpochBasedTrainLoop", "ResumableIterBasedTrainLoop")
        for argument in ("runner", "dataloader")
    },
    ("batch_collate", "_scope_"): GIVEN,
    **{
        ("AtomicCheckpointHook", name): "MMEngine's; fields.py has default_hooks.checkpoint"
        for name in (
            *("interval", "by_epoch", "save_optimizer", "save_param_scheduler", "out_dir"),
            *("max_keep_ckpts", "save_last", "save_best", "rule", "greater_keys", "less_keys"),
            *("file_client_args", "backend_args", "filename_tmpl", "published_keys", "save_begin"),
        )
    },
    ("MergedGroupsOptimConstructor", "optim_wrapper_cfg"): GIVEN,
    ("MergedGroupsOptimConstructor", "paramwise_cfg"): GIVEN,
    ("RunCheckHook", "test"): "the name that PreflightHook had in version 0.1.0",
    **{("StudentGroupValLoop", name): GIVEN for name in ("runner", "dataloader", "evaluator")},
    **{
        (name, argument): UNREAD
        for name in ("Digits", "RandomImages")
        for argument in ("data_root", "data_prefix", "filter_cfg")
    },
}

# Whose arguments stand in a config under another name than their own.
IN_CONFIG = {
    "ResumableEpochBasedTrainLoop": "train_cfg",
    "ResumableIterBasedTrainLoop": "train_cfg",
    "StudentGroupValLoop": "val_cfg",
}

OPTIONS = {
    **{(tool, "--no-pin-memory"): FLAG for tool in ("train", "test", "precompute", "dump_logits")},
    **{("train", name): FLAG for name in ("--no-validate", "--no-persistent-workers", "--retrain")},
    **{("test", name): FLAG for name in ("--tta", "--amp")},
    **{(tool, "--fast"): FLAG for tool in ("precompute", "dump_logits")},
    **{(tool, "--channels-last"): FLAG for tool in ("train", "precompute", "dump_logits")},
    **{("reproduce", name): FLAG for name in ("--fast", "--dry-run", "--no-train", "--no-report")},
    ("publish_results", "--check"): FLAG,
    **{("benchmark", name): FLAG for name in ("--losses", "--error-table", "--growth")},
}
