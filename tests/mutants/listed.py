"""Wrong lines by area: the file in the package, a line, what it becomes, and tests that must fail.

The losses have theirs in tests/losses/test_mutants.py, which run with the suite. These take a
process each, so that `python tests/mutants` runs them when tests are changed or deleted; the suite
only checks that every line is still there, once.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A fault of one line, and the tests that see it."""

    file: str
    old: str
    new: str
    tests: str


_CONFIG = "tests/engine/test_config.py"
_CHANGED = "tests/engine/test_resume_changed.py"
_RESUME = "tests/engine/test_resume.py"
_STATE = "tests/hooks/test_resume_state_hook.py"
_SKIPPING = "tests/engine/test_skipping_sampler.py"
_RUN_FILE = "tests/engine/test_run_file.py"
_LOCK = "tests/engine/test_run_lock.py"
_NOISE = "tests/datasets/test_label_noise.py"
_MEMORY = "tests/datasets/test_in_memory_dataset.py"
_SAMPLER = "tests/datasets/test_seeded_sampler.py"
_SUBSET = "tests/datasets/test_data_subset.py"
_ECE = "tests/metrics/test_expected_calibration_error.py"
_TEST = "tests/engine/test_test.py"
_EXPORT = "tests/metrics/test_export.py"
_CACHE = "tests/models/test_teacher_cache.py"
_PLAIN = "tests/engine/test_plain_checkpoints.py"
_TEACHER = "tests/models/test_frozen_teacher.py"
_DISTILLER = "tests/models/test_logit_distiller.py"
_CHECKPOINT = "tests/engine/test_checkpoint.py"
_NAMES = "tests/models/test_key_names.py"
_FIELDS = "tests/bad_input/test_fields.py"
_PREFLIGHT = "tests/engine/test_preflight.py"
_ASYNC = "tests/hooks/test_lazy_runtime_info_hook.py"
_TOP1 = "tests/hooks/test_train_accuracy_hook.py"
_FINITE = "tests/hooks/test_finite_loss_hook.py"
_SCHEDULER = "tests/lab/test_scheduler.py"
_BITS = "tests/datasets/test_counter_hash.py"
_FIRST = "tests/engine/test_train_teacher.py"

MUTANTS = {
    # fingerprint
    "the seed does not count": Mutant(
        "engine/fingerprint.py",
        "seed=seed_of(cfg))\n    return reduce",
        "seed=0)\n    return reduce",
        _CONFIG,
    ),
    "processes do not count": Mutant(
        "engine/fingerprint.py",
        'kept["processes"] = content.get("processes", 1)',
        'kept["processes"] = 1',
        _CONFIG,
    ),
    "a teacher's weights do not count": Mutant(
        "engine/fingerprint.py",
        "weights=known or _teacher_weights(teacher))",
        "weights=None)",
        _CONFIG,
    ),
    "a teacher's network does not count": Mutant(
        "engine/fingerprint.py",
        "described = dict(network=_network_of(teacher),",
        "described = dict(network=0,",
        _CONFIG,
    ),
    "prefixes of packages count": Mutant(
        "engine/fingerprint.py",
        "return scoped[1] if scoped else",
        "return value if scoped else",
        _CONFIG,
    ),
    "workers count": Mutant(
        "engine/fingerprint.py", '"num_workers", "prefetch_factor"', '"prefetch_factor"', _CONFIG
    ),
    "no hook counts": Mutant(
        "engine/fingerprint.py", "return not watching and", "return False and", _CONFIG
    ),
    "every hook counts": Mutant(
        "engine/fingerprint.py", '"changes_training", True)', '"_changes_training", True)', _CONFIG
    ),
    "validation never counts": Mutant(
        "engine/fingerprint.py",
        "if '\"monitor\"' in following",
        "if '\"monitors\"' in following",
        _CONFIG,
    ),
    "an old hash of weights is remembered": Mutant(
        "engine/fingerprint.py",
        "str(file.resolve()), status.st_mtime_ns, status.st_size)",
        "str(file.resolve()), 0, 0)",
        _CONFIG,
    ),
    "float16 caches do not count": Mutant(
        "models/teacher.py",
        'if cache.get("dtype", "float32") != "float32":',
        "if False:",
        _CONFIG,
    ),
    "files of labels count by their path": Mutant(
        "engine/fingerprint.py",
        "return file_hash(value) or",
        "return value or",
        _CHANGED,
    ),
    "batches may change with the processes": Mutant(
        "engine/fingerprint.py", "return fields[_PROCESSES] * size if", "return size if", _CHANGED
    ),
    "other weights are the run's": Mutant(
        "engine/results.py", 'same = row.get("weights") == weights and', "same =", _SCHEDULER
    ),
    # resume
    "python's generator is not restored": Mutant(
        "engine/resume.py",
        'random.setstate((version, tuple(states["python"].tolist()), gauss))',
        "pass",
        _STATE,
    ),
    "numpy's generator is not restored": Mutant(
        "engine/resume.py",
        'np.random.set_state(("MT19937", keys, int(position), int(has_gauss), float(cached)))',
        "pass",
        _STATE,
    ),
    "torch's generator is not restored": Mutant(
        "engine/resume.py", 'torch.set_rng_state(states["torch"].cpu())', "pass", _STATE
    ),
    "accumulated gradients are lost": Mutant(
        "engine/resume.py",
        'for name, value in state["gradients"].items():',
        "for name, value in ():",
        f"{_RESUME}::test_cut_off_within_an_epoch_and_at_its_end[accumulating]",
    ),
    "patience starts anew": Mutant(
        "engine/resume.py",
        'EarlyStoppingHook: ("wait_count", "best_score"),',
        "",
        f"{_RESUME}::test_cut_off_before_in_and_after_a_validation",
    ),
    "a checkpoint misses the stop that its validation decides": Mutant(
        "engine/runner.py",
        'hook.setdefault("priority", "LOW")',
        "pass",
        f"{_RESUME}::test_cut_off_before_in_and_after_a_validation",
    ),
    "a validation that was due is left out": Mutant(
        "engine/runner.py",
        "if not self.progress.validated:",
        "if False:",
        f"{_RESUME}::test_cut_off_before_in_and_after_a_validation",
    ),
    "a validation that was due is of the stage after it": Mutant(
        "hooks/sequential_teacher.py",
        'getattr(runner.train_loop, "progress", None)',
        'getattr(runner.train_loop, "place", None)',
        f"{_RESUME}::test_a_validation_that_is_due_is_of_the_stage_before_it",
    ),
    "workers that the run had are started after its random states": Mutant(
        "engine/runner.py",
        "if self.dataloader.persistent_workers and self._iter:",
        "if False:",
        f"{_RESUME}::test_cut_off_within_an_epoch_and_at_its_end[with_workers]",
    ),
    "a skipped batch is served": Mutant(
        "engine/runner.py", "range(self.skip)", "range(self.skip - 1)", _SKIPPING
    ),
    "an endless sampler has one order": Mutant(
        "engine/runner.py", "sampler.set_epoch(number)", "sampler.set_epoch(0)", _SKIPPING
    ),
    "the place in the epoch is lost": Mutant(
        "engine/resume.py",
        "loop.resume_from(progress)\n",
        "loop.resume_from(progress._replace(batch=0))\n",
        f"{_RESUME}::test_an_iteration_keeps_its_number",
    ),
    "another run is resumed": Mutant(
        "engine/fingerprint.py",
        "return row_fingerprint(read_run(cfg.work_dir)) == fingerprint_of(cfg, processes)",
        'return "computed" in read_run(cfg.work_dir)',
        _RUN_FILE,
    ),
    "a new run keeps the checkpoints of the one before": Mutant(
        "engine/resume.py",
        "    if runner.iter:\n        known",
        "    if True:\n        known",
        _RUN_FILE,
    ),
    "a best checkpoint elsewhere is removed": Mutant(
        "engine/save.py",
        "runner.message_hub.update_info(key, self._own(info[key]))",
        "pass",
        "tests/hooks/test_atomic_checkpoint_hook.py::test_only_a_best_one_of_its_own_is_removed",
    ),
    "the best checkpoint before goes first": Mutant(
        "engine/save.py",
        "self.remove = outdated.append",
        "self.remove = backend.remove",
        "tests/hooks/test_atomic_checkpoint_hook.py::test_only_a_best_one_of_its_own_is_removed",
    ),
    "a second signal is left out": Mutant(
        "engine/preemption.py",
        "elif time.monotonic() - self._since >= _ONE_EVENT:",
        "elif False:",
        "tests/engine/test_signals.py::test_a_second_signal_ends_it_at_once",
    ),
    "workers end at a signal": Mutant(
        "engine/preemption.py",
        "before = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)",
        "before = signal.pthread_sigmask(signal.SIG_BLOCK, ())",
        "tests/engine/test_signals.py::test_workers_leave_signals_to_their_process",
    ),
    "two runs share a folder": Mutant(
        "engine/lock.py", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB", _LOCK
    ),
    "a link in a work folder is followed": Mutant(
        "utils/files.py",
        "os.path.realpath(path) if follow else path",
        "os.path.realpath(path)",
        "tests/test_atomic_files.py::test_links_pipes_and_folders",
    ),
    "a lock is written through a link": Mutant("utils/files.py", " | os.O_NOFOLLOW", "", _LOCK),
    "ranks outlive their launcher": Mutant(
        "engine/launch.py",
        "prctl(1, signal.SIGTERM)",
        "prctl(1, 0)",
        "tests/distributed/test_stop.py::test_ranks_end_with_a_launcher_that_is_killed",
    ),
    "a cache of another user ends training": Mutant(
        "models/teacher_cache.py",
        "except OSError as error:  # training need not end for it",
        "except FileNotFoundError as error:  # training need not end for it",
        _CACHE,
    ),
    "a disk that is full at the end is no error": Mutant(
        "engine/precompute.py",
        "            store.sync()",
        "            store.flush()",
        "tests/engine/test_precompute.py",
    ),
    "a worker keeps the lock of a killed run": Mutant(
        "engine/lock.py", "_held.pop().close()", "_held.pop()", _LOCK
    ),
    "a changed config is resumed": Mutant(
        "engine/resume.py", "if changes and not self.resume_changed:", "if False:", _CHANGED
    ),
    "changed data are resumed": Mutant(
        "engine/resume.py", "if before is not None and before != now:", "if False:", _CHANGED
    ),
    # seeding
    "the epoch does not seed": Mutant(
        "datasets/seeding.py", "self._epoch = int(epoch)", "self._epoch = 0", _SAMPLER
    ),
    "shuffling never changes": Mutant(
        "datasets/seeding.py",
        "            self.sampler.set_epoch(epoch)",
        "            pass",
        _SAMPLER,
    ),
    "the place in an endless stream is lost": Mutant(
        "datasets/seeding.py", "self._read = num_samples", "self._read = 0", _SAMPLER
    ),
    "bits of one word": Mutant(
        "datasets/draws.py",
        "state = _mix(state + _STEP + word)",
        "state = _mix(_STEP + word)",
        _BITS,
    ),
    "another constant": Mutant(
        "datasets/draws.py", "0xBF58476D1CE4E5B9", "0xBF58476D1CE4E5B8", _BITS
    ),
    "views by seed alone": Mutant(
        "datasets/augment.py",
        "np.concatenate([keys.source, identity[None]])",
        "np.concatenate([keys.source, 0 * identity[None]])",
        _MEMORY,
    ),
    # label noise
    "a changed label may stay": Mutant(
        "datasets/label_noise.py", "step = 1 + (rule.draw", "step = 0 + (rule.draw", _NOISE
    ),
    "the rate of the whole": Mutant(
        "datasets/label_noise.py",
        "np.zeros_like(clean) if self.per_class is False else clean",
        "np.zeros_like(clean)",
        _NOISE,
    ),
    "uniform spares the own class": Mutant(
        "datasets/label_noise.py",
        "(rule.draw(len(clean)) % np.uint64(num_classes)).astype(np.int64))",
        "_symmetric(rule, clean, num_classes))",
        _NOISE,
    ),
    "pairs backwards": Mutant(
        "datasets/label_noise.py",
        "rule.change(clean, (clean + 1) % num_classes)",
        "rule.change(clean, (clean - 1) % num_classes)",
        _NOISE,
    ),
    "the seed of noise is ignored": Mutant(
        "datasets/label_noise.py",
        "return draw(check_seed(self.seed), NEW_LABEL, count)",
        "return draw(0, NEW_LABEL, count)",
        _NOISE,
    ),
    "shares round down": Mutant(
        "datasets/draws.py",
        "+ 0.5 <= share * len(groups) + 1e-9",
        "+ 1 <= share * len(groups) + 1e-9",
        _NOISE,
    ),
    "columns of the matrix": Mutant(
        "datasets/label_noise.py",
        "edges = np.cumsum(matrix, axis=1)",
        "edges = np.cumsum(matrix.T, axis=1)",
        _NOISE,
    ),
    "groups of CIFAR-100 backwards": Mutant(
        "datasets/label_noise.py", "np.roll(groups, -1, axis=1)", "np.roll(groups, -1)", _NOISE
    ),
    "the noisy label is the clean one": Mutant(
        "datasets/label_noise.py",
        "super().get_data_info(idx), gt_label=noisy",
        "super().get_data_info(idx), gt_label=clean",
        "tests/datasets/test_noisy_label_dataset.py",
    ),
    "the noise of joined data is not described": Mutant(
        "datasets/wrapper.py",
        "for inner in wrapped(dataset):\n        for key",
        "for inner in []:\n        for key",
        "tests/datasets/test_wrappers.py",
    ),
    "a part of a part is one of the whole": Mutant(
        "datasets/wrapper.py",
        "self._kept = self._kept[np.asarray(indices, dtype=np.int64)]",
        "self._kept = np.asarray(indices, dtype=np.int64)",
        "tests/datasets/test_wrappers.py",
    ),
    # data
    "a subset by the labels of the file's order": Mutant(
        "datasets/subset.py",
        "rows = order[np.searchsorted(index, table.identity)]",
        "rows = np.searchsorted(index, table.identity)",
        _SUBSET,
    ),
    "a subset is augmented by its own numbers": Mutant(
        "datasets/wrapper.py",
        "inner = self._kept[idx]",
        "inner = idx",
        "tests/datasets/test_seeded_dataset.py",
    ),
    "another order of flip and crop in a view's number": Mutant(
        "datasets/augment.py",
        "(whole, *chosen), self._counts)",
        '(whole, *chosen), self._counts, order="F")',
        _MEMORY,
    ),
    "an epoch in progress changes its number": Mutant(
        "datasets/seeding.py",
        "SampleKey(self.seed, epoch, int(index))",
        "SampleKey(self.seed, self._epoch, int(index))",
        _SAMPLER,
    ),
    # metrics
    "an edge belongs to the bin above it": Mutant(
        "metrics/calibration.py",
        "np.searchsorted(edges, confidence)",
        'np.searchsorted(edges, confidence, "right")',
        _ECE,
    ),
    "equal confidences are parted": Mutant(
        "metrics/calibration.py",
        "below = np.searchsorted(np.sort(confidence), confidence)",
        "below = np.argsort(np.argsort(confidence))",
        _ECE,
    ),
    "the process by process order of an export": Mutant(
        "metrics/export.py",
        "rows[rank :: len(parts)] = part",
        "rows[rank * len(part) : (rank + 1) * len(part)] = part",
        _EXPORT,
    ),
    "a prediction is saved with its batch": Mutant(
        "engine/test.py", "lambda t: t.cpu().clone())", "lambda t: t.cpu())", _TEST
    ),
    "the transforms of a wrapper are ignored": Mutant(
        "datasets/in_memory.py",
        "self.dataset.pipeline = Compose(self._given)",
        "pass",
        "tests/integration/test_use_of_a_student.py",
    ),
    "an export may lack samples": Mutant(
        "metrics/export.py", "if rows.samples != expected:", "if False:", _EXPORT
    ),
    "an export may repeat samples": Mutant(
        "metrics/export.py", "if len(values) < len(index):", "if False:", _EXPORT
    ),
    "an export of other weights is current": Mutant(
        "engine/logits.py",
        'CONTENT = ("format", "fingerprint", "weights",',
        'CONTENT = ("format", "fingerprint",',
        "tests/engine/test_logits.py",
    ),
    # cache
    "normalisation is no part of the key": Mutant(
        "models/teacher_cache.py", 'names = ("mean", "std", ', 'names = ("std", ', _CACHE
    ),
    "pictures are no part of the key": Mutant(
        "models/teacher_cache.py", "pictures=views.pictures,", 'pictures="",', _CACHE
    ),
    "the type of stored logits is no part of the key": Mutant(
        "models/teacher_cache.py", "            dtype=self.dtype,\n", "", _CACHE
    ),
    "max_gib is ignored": Mutant(
        "models/teacher_cache.py", "if room > self.max_gib * 2**30:", "if False:", _CACHE
    ),
    "damaged rows count": Mutant(
        "models/teacher_cache.py",
        "found = sums == self._checksum(words, numbers)",
        "found = sums != 0",
        _CACHE,
    ),
    "a row in the place of another counts": Mutant(
        "models/teacher_cache.py",
        "total += numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)",
        "total += np.uint64(0x9E3779B97F4A7C15)",
        _CACHE,
    ),
    "a full disk ends training": Mutant(
        "models/teacher_cache.py",
        "            except OSError as error:  # most likely",
        "            except KeyError as error:  # most likely",
        _CACHE,
    ),
    "every epoch is the first": Mutant(
        "engine/precompute.py",
        "sampler.set_epoch(epoch)",
        "sampler.set_epoch(0)",
        "tests/engine/test_precompute.py",
    ),
    "precomputed outside the precision of the run": Mutant(
        "engine/precompute.py",
        "with wrapper.optim_context(model):",
        "if True:",
        "tests/engine/test_precompute.py",
    ),
    # safe reading
    "pickles may run code": Mutant(
        "checkpoint.py",
        "with _clear_errors(filename), _weights_only_forced():",
        "with _clear_errors(filename):",
        _CHECKPOINT,
    ),
    "plugins may read carelessly": Mutant(
        "checkpoint.py",
        '    os.environ[FORCE] = "1"\n',
        '    os.environ[FORCE] = "0"\n',
        _CHECKPOINT,
    ),
    "getattr is allowed": Mutant(
        "checkpoint.py",
        "if owner is HistoryBuffer and type(name) is str and name in _STATISTICS:",
        "if owner is HistoryBuffer and type(name) is str:",
        _CHECKPOINT,
    ),
    "a download is not compared with its name": Mutant(
        "checkpoint.py", "sha256 and sha256[1]", "None", "tests/engine/test_download.py"
    ),
    "the config of a checkpoint is executed": Mutant(
        "checkpoint.py", 'checkpoint["meta"].pop("config", None)', "pass", _CHECKPOINT
    ),
    "a checkpoint may delete files": Mutant(
        "checkpoint.py", 'if key == "keep_ckpt_ids":', "if False:", _CHECKPOINT
    ),
    "a checkpoint may delete a folder": Mutant(
        "checkpoint.py",
        'path.name.startswith("best_") and path.suffix == ".pth"',
        "True",
        _CHECKPOINT,
    ),
    "a web page is a checkpoint": Mutant(
        "checkpoint.py",
        'startswith((b"<!doctype", b"<html"))',
        'startswith((b"<!no",))',
        "tests/engine/test_download.py tests/bad_input/test_broken.py",
    ),
    # teachers that are trained first
    "any teacher that is there will do": Mutant(
        "engine/train.py",
        "same = row_fingerprint(noted) == fingerprint(content)",
        "same = True",
        _FIRST,
    ),
    "a teacher that was cut off starts anew": Mutant(
        "engine/train.py",
        '"auto" if action == "resume" else None',
        "None",
        _FIRST,
    ),
    "another teacher is trained anew unasked": Mutant(
        "engine/train.py",
        "if args.retrain:\n        return",
        "if True:\n        return",
        _FIRST,
    ),
    "a teacher's teacher is not compared": Mutant(
        "engine/train.py",
        "runs |= plan_runs(_teacher_arguments(teacher, args), argv, waiting)",
        "runs |= [*plan_runs(_teacher_arguments(teacher, args), argv, waiting).items()][-1:]",
        _FIRST,
    ),
    "teachers of a fast student are exact": Mutant(
        "engine/train.py",
        '*("launcher", "fast", "amp",',
        '*("launcher", "amp",',
        _FIRST,
    ),
    "every generation learns of the first": Mutant(
        "engine/config.py",
        'f"generation{number - 1}"',
        '"generation1"',
        _FIRST,
    ),
    "an earlier generation has other settings": Mutant(
        "engine/train.py",
        "own = copy.deepcopy(args)",
        "own = build_parser().parse_args(teacher.arguments)",
        _FIRST,
    ),
    # experiments
    "a student starts before its teacher": Mutant(
        "lab/scheduler.py",
        "graph.add(group, *(group_of[n.work_dir] for f in group for n in self.runs[f].needs))",
        "graph.add(group)",
        _SCHEDULER,
    ),
    "older weights stay where a run starts anew": Mutant(
        "lab/scheduler.py",
        "Path(folder, FINAL).unlink(missing_ok=True)",
        "pass",
        _SCHEDULER,
    ),
    "a group that was killed is resumed in part": Mutant(
        "lab/scheduler.py",
        "members = group if begun and missing and not failed else tuple(missing)",
        "members = tuple(missing)",
        _SCHEDULER,
    ),
    "students of other teachers share a folder": Mutant(
        "lab/experiment.py",
        'suffix="from-" + "+".join(names) if names else "",',
        'suffix="",',
        "tests/lab/test_experiment.py",
    ),
    "the standard deviation is that of a population": Mutant(
        "lab/tables.py", "ddof=1", "ddof=0", "tests/lab/test_tables.py"
    ),
    "seeds that failed are in the mean of the difference": Mutant(
        "lab/tables.py",
        "seeds = sorted(a.keys() & b.keys())",
        "seeds = sorted(a.keys())",
        "tests/lab/test_tables.py",
    ),
    # the distiller, DDP
    "the teacher trains": Mutant(
        "models/teacher.py", "requires_grad_(False)", "requires_grad_(True)", _TEACHER
    ),
    "alpha the other way round": Mutant(
        "models/distiller.py", "ce=1 - check_alpha(alpha)", "ce=check_alpha(alpha)", _DISTILLER
    ),
    "micro-batches of a cache do not count": Mutant(
        "models/teacher.py",
        "return 32 if self.micro_batch is None",
        "return None if self.micro_batch is None",
        _CONFIG,
    ),
    "the teacher's images stay in the student's normalisation": Mutant(
        "models/teacher.py", "inputs = inputs * scale + shift", "pass", _TEACHER
    ),
    "resuming without some of the weights": Mutant(
        "engine/resume.py",
        "    _check_weights(runner, checkpoint)",
        "    pass",
        "tests/engine/test_resume.py::test_weights_that_do_not_fit_are_refused",
    ),
    "a state that cannot be saved is trained": Mutant(
        "engine/runner.py", "make_plain(self._state())", "pass", _PLAIN
    ),
    "what hooks add is saved as it is": Mutant(
        "engine/runner.py", 'make_plain(kwargs["checkpoint"])', "pass", _PLAIN
    ),
    "prefixes of wrappers stay": Mutant(
        "checkpoint.py", "_WRAPPER.match(common, len(prefix))", "None", _NAMES
    ),
    "big-endian arrays are misread": Mutant(
        "checkpoint.py",
        "if any(_BIG_ENDIAN.search(pickle) for pickle in pickles):",
        "if False:",
        _CHECKPOINT,
    ),
    "the output of any module are the logits": Mutant(
        "models/build.py", "if output is logits]", "]", "tests/models/test_foreign_students.py"
    ),
    "the teacher gets the images in the student's size": Mutant(
        "models/teacher.py",
        'inputs = F.interpolate(inputs, size, mode="bilinear", antialias=True)',
        "pass",
        _TEACHER,
    ),
    "the size of images is no part of the key": Mutant(
        "models/teacher.py", "dict(input_size=settings.input_size)", "{}", _CACHE
    ),
    "a scheduler's deque comes back as a list": Mutant(
        "checkpoint.py", "or not path.startswith(_ATTRIBUTES)", "or True", _PLAIN
    ),
    "a teacher without some of its weights": Mutant(
        "checkpoint.py",
        "missing, unexpected = network.load_state_dict(state, strict=False)",
        "missing, unexpected = network.load_state_dict(state, strict=False) and ([], [])",
        _TEACHER,
    ),
    "a mean of logarithms of probabilities": Mutant(
        "models/distiller.py",
        "return log_probs.logsumexp(0) - math.log(len(logits))",
        "return log_probs.mean(0)",
        _DISTILLER,
    ),
    # student groups
    "students draw from one generator": Mutant(
        "models/student_group.py",
        "torch.default_generator.set_state(self._states[name])",
        "pass",
        "tests/models/test_student_group.py",
    ),
    "a group tests what it has trained": Mutant(
        "engine/group.py",
        'runner.model.load_state_dict(checkpoint["state_dict"])',
        "pass",
        "tests/engine/test_group.py",
    ),
    "a run teaches another of its group": Mutant(
        "engine/group.py",
        "teacher.file.resolve() in made",
        "False",
        "tests/engine/test_group.py",
    ),
    # checks before a run, and hooks that observe it
    "misspelt arguments pass": Mutant(
        "engine/check.py", "    refuse_unknown(path, given, known)", "    pass", _FIELDS
    ),
    "values are not checked by their defaults": Mutant(
        "engine/check.py",
        "elif isinstance(default, (int, float)) and default >= 0:",
        "elif False:",
        _FIELDS,
    ),
    "labels outside the classes pass": Mutant(
        "engine/preflight.py",
        "if found is not None and not 0 <= found[0] <= found[1] < classes:",
        "if False:",
        _PREFLIGHT,
    ),
    "a checkpoint of another network passes": Mutant(
        "engine/preflight.py", "if fitting < _FIT * count:", "if fitting < 0:", _PREFLIGHT
    ),
    "a pending value is not read": Mutant(
        "hooks/async_log.py",
        "        self._receive()\n        return self._logs",
        "        return self._logs",
        _ASYNC,
    ),
    "every value waits for the device": Mutant(
        "hooks/async_log.py", "if len(self._pending) >= self._limit:", "if True:", _ASYNC
    ),
    "validation is observed as training": Mutant(
        "hooks/networks.py", "if module.training == self._training and", "if", _TOP1
    ),
    "a loss that is not finite passes": Mutant(
        "hooks/finite_loss.py",
        'if not math.isfinite(values.get(f"{prefix}loss", 0.0)):',
        "if False:",
        _FINITE,
    ),
    # report
    "a run has the oldest of its rows": Mutant(
        "lab/report/data.py",
        '{row.get("weights"): n for n, row in results.rows.items()}',
        '{row.get("weights"): n for n, row in reversed(results.rows.items())}',
        "tests/lab/report/test_read_results.py",
    ),
    "a run has the row of another test of its weights": Mutant(
        "lab/report/data.py",
        'lines.get((weights, run.get("finished")), lines.get(weights))',
        "lines.get(weights)",
        "tests/lab/report/test_read_results.py",
    ),
    "exported logits of other images count": Mutant(
        "engine/logits.py",
        'return same and same_test(found, identity["tested"])',
        "return same",
        "tests/engine/test_logits.py",
    ),
    "a run that was resumed changed is its config's": Mutant(
        "engine/resume.py",
        'runner.computed["changed"] = [*earlier, *changes]',
        "pass",
        "tests/engine/test_resume_changed.py",
    ),
    "logits of other weights are drawn": Mutant(
        "lab/report/samples.py",
        "if trained is not None and said != trained",
        "if False and said != trained",
        "tests/lab/report/test_samples.py",
    ),
    "a student has the teacher of other samples": Mutant(
        "lab/report/samples.py",
        "teacher.logits if dump.same_samples(teacher) else None",
        "teacher.logits",
        "tests/lab/report/test_samples.py",
    ),
    "students on other data are one group": Mutant(
        "lab/report/groups.py",
        'run["method"].get("network"), data[run["name"]], teacher',
        'run["method"].get("network"), data[runs[0]["name"]], teacher',
        "tests/lab/report/test_groups.py",
    ),
    "bins hold their left edges": Mutant(
        "lab/report/figures/calibration.py",
        "/ num_bins, confidence)",
        '/ num_bins, confidence, "right")',
        "tests/lab/report/test_calibration.py",
    ),
    "densities end at their floor": Mutant(
        "lab/report/densities.py",
        "values if floor is None else np.concatenate",
        "values if True else np.concatenate",
        "tests/lab/report/test_densities.py",
    ),
    "bands are of the population": Mutant(
        "lab/report/curves.py",
        "values.std(0, ddof=1)",
        "values.std(0)",
        "tests/lab/report/test_curves.py",
    ),
    "the page runs what data say": Mutant(
        "lab/report/page.py",
        "autoescape=True",
        "autoescape=False",
        "tests/lab/report/test_page.py",
    ),
    "a link leaves its folder": Mutant(
        "lab/report/page_figures.py",
        "if target.is_relative_to(base)]",
        "if target]",
        "tests/lab/report/test_page_files.py",
    ),
}
