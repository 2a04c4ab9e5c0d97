"""Wrong words on command lines: the tool, its option, the kind of fault, the words, the message.

In words, {student}, {kd} and {checkpoint} are those of a finished run in the current folder.
"""

from mmkd_logit.lab.report.figures import FIGURES

_COMMON = ("train", "test", "precompute", "dump_logits")
# What comes first on a command line that is right.
FIRST = {
    "train": ["{student}"],
    "test": ["{student}", "{checkpoint}"],
    "precompute": ["{kd}"],
    "dump_logits": ["{student}", "{checkpoint}"],
    "train_group": ["two.txt"],
    "reproduce": ["digits"],
    "publish_results": [],
    "benchmark": ["{kd}"],
    "report": ["results"],
}


def _each(option, kind, words, says, tools=_COMMON):
    return [(tool, option, kind, [*FIRST[tool], *words], says) for tool in tools]


# fmt: off
_SHARED = [
    *_each("--work-dir", "file for a folder", ["--work-dir", "a_file"], "is a file; name a folder"),
    *_each("--work-dir", "empty", ["--work-dir", ""], "--work-dir is empty"),
    *_each("--cfg-options", "letters exchanged", ["--cfg-options", "modle.alpha=1"],
           "did you mean model?"),
    *_each("--launcher", "not a choice", ["--launcher", "slrum"], "'slurm'"),
    *_each("--local_rank", "text for a number", ["--local_rank", "first"], "invalid int value"),
    *_each("--amp", "without the device", ["--amp"], "leave",
           ("train", "precompute", "dump_logits")),
]

_TRAIN = [
    ("train", "config", "missing file", ["no.py"], "the config no.py does not exist"),
    ("train", "config", "wrong ending", ["two.txt"], "must end in .py"),
    ("train", "config", "missing", [], "required: config"),
    ("train", "config", "missing part", ["empty.py"], "defines no model"),
    ("train", "config", "no such name", ["mmpretrain::no.py"], "mmpretrain has no config"),
    ("train", "--cfg-options", "missing part", ["{student}", "--cfg-options", "abc"], "KEY=VALUE"),
    ("train", "--cfg-options", "no effect", ["{student}", "--cfg-options", "launcher=mpi"],
     "say --launcher"),
    ("train", "--launcher", "without the device", ["{student}", "--launcher", "mpi"], "needs GPUs"),
    ("train", "--resume", "missing file", ["{student}", "--resume", "no.pth"], "does not exist"),
    ("train", "--resume", "weights alone", ["{student}", "--resume", "{checkpoint}"],
     "cannot be resumed"),
    ("train", "--resume-changed", "contradiction", ["{student}", "--resume-changed"],
     "goes with --resume"),
    ("train", "--auto-scale-lr", "contradiction", ["lone.py", "--auto-scale-lr"],
     "auto_scale_lr=dict(base_batch_size=...)"),
    ("train", "--fast", "contradiction", ["{student}", "--fast", "--amp"], "give one of them"),
    ("train", "--seed", "negative", ["{student}", "--seed", "-1"], "from 0 to 2**32 - 1"),
    ("train", "--seed", "text for a number", ["{student}", "--seed", "one"], "invalid int value"),
    ("train", "--epochs", "zero", ["{student}", "--epochs", "0"], "at least 1"),
    ("train", "--epochs", "fraction for a count", ["{student}", "--epochs", "1.5"], "invalid int"),
    ("train", "--train-teacher", "missing file", ["{lost}"], "make it with: python tools/train.py"),
    ("train", "--results", "empty", ["{student}", "--results", ""], "--results is empty"),
    ("train", "--results", "folder for a file", ["{student}", "--results", "tools"],
     "is a folder; name a file in it"),
    ("train", "--results", "device for a file", ["{student}", "--results", "/dev/full"],
     "not a regular file"),
    ("train", "--results", "file for a folder", ["{student}", "--results", "a_file/r.jsonl"],
     "is a file; name a folder"),
    ("train", "--results", "another file's format", ["{student}", "--results", "two.txt"],
     "two.txt:1 is not a results line"),
    ("train", "--results", "another file's content", ["{student}", "--results", "settings.json"],
     'holds a line that is of no run, {"settings": "mine"}; name another file'),
    ("train", "--train-metrics", "contradiction", ["{student}", "--train-metrics"],
     "goes with --results"),
    ("train", "--dump-logits", "not a choice", ["{student}", "--dump-logits", "trian"], "'train'"),
    ("train", "--epohcs", "letters exchanged", ["{student}", "--epohcs", "1"],
     "did you mean --epochs?"),
]
_TEST = [
    ("test", "config", "missing file", ["no.py", "{checkpoint}"], "no.py does not exist"),
    ("test", "config", "missing", [], "required: config, checkpoint"),
    ("test", "checkpoint", "missing file", ["{student}", "no.pth"], "no.pth does not exist"),
    ("test", "--out", "wrong ending", ["{student}", "{checkpoint}", "--out", "o.csv"], ".pkl"),
    ("test", "--out", "folder for a file", ["{student}", "{checkpoint}", "--out", "folder.pkl"],
     "is a folder"),
    ("test", "--out-item", "contradiction", ["{student}", "{checkpoint}", "--out-item", "pred"],
     "add --out FILE"),
    ("test", "--out-item", "not a choice",
     ["{student}", "{checkpoint}", "--out", "o.pkl", "--out-item", "logits"], "'metrics'"),
    ("test", "--show", "contradiction", ["unseen.py", "{checkpoint}", "--show"],
     "needs default_hooks.visualization"),
    ("test", "--show-dir", "contradiction", ["unseen.py", "{checkpoint}", "--show-dir", "d"],
     "needs default_hooks.visualization"),
    ("test", "--interval", "zero", ["{student}", "{checkpoint}", "--interval", "0"], "from 1 on"),
    ("test", "--wait-time", "negative", ["{student}", "{checkpoint}", "--wait-time", "-1"],
     "from 0 on"),
]
_OTHERS = [
    ("precompute", "config", "missing file", ["no.py"], "no.py does not exist"),
    ("precompute", "config", "missing", [], "required: config"),
    ("precompute", "--epochs", "zero", ["{kd}", "--epochs", "0"], "at least 1"),
    ("precompute", "--seed", "negative", ["{kd}", "--seed", "-1"], "from 0 to 2**32 - 1"),
    ("dump_logits", "config", "missing file", ["no.py", "{checkpoint}"], "no.py does not exist"),
    ("dump_logits", "checkpoint", "missing file", ["{student}", "no.pth"], "no.pth"),
    ("dump_logits", "--splits", "not a choice", ["{student}", "{checkpoint}", "--splits", "tset"],
     "'test'"),
    ("dump_logits", "--out", "file for a folder", ["{student}", "{checkpoint}", "--out", "a_file"],
     "is a file"),
    ("dump_logits", "--seed", "text for a number", ["{student}", "{checkpoint}", "--seed", "x"],
     "invalid int"),
    ("dump_logits", "--epochs", "zero", ["{student}", "{checkpoint}", "--epochs", "0"], "at least"),
    ("train_group", "runs", "missing file", ["no.txt"], "no.txt does not exist"),
    ("train_group", "runs", "missing part", ["one.txt"], "names 1 runs"),
    ("train_group", "runs", "wrong word inside", ["wrong.txt"], "wrong.txt:2: "),
    ("train_group", "runs", "wrong quotes", ["quotes.txt"], "quote as a shell wants it"),
    ("train_group", "--results", "folder for a file", ["two.txt", "--results", "tools"],
     "is a folder"),
    ("train_group", "--results", "another file's format", ["two.txt", "--results", "one.txt"],
     "one.txt:1 is not a results line"),
    ("train_group", "--launcher", "not a choice", ["two.txt", "--launcher", "slrum"], "'slurm'"),
    ("train_group", "--local_rank", "text for a number", ["two.txt", "--local_rank", "x"],
     "invalid int"),
    ("reproduce", "experiments", "no such name", ["tabel1"], "no experiment 'tabel1'"),
    ("reproduce", "experiments", "missing", [], "required: experiments"),
    ("reproduce", "--scale", "no such name", ["digits", "--scale", "small"], "known: "),
    ("reproduce", "--seeds", "fraction for a count", ["digits", "--seeds", "1.5"], "invalid int"),
    ("reproduce", "--only", "no such name", ["table1", "--only", "nothing"], "nothing"),
    ("reproduce", "--estimate", "missing part", ["table1", "--estimate"], "goes with --dry-run"),
    ("reproduce", "--epochs", "zero", ["table1", "--epochs", "0"], "at least 1"),
    ("reproduce", "--share-teacher", "fraction for a count",
     ["table1", "--share-teacher", "2.5"], "invalid int"),
    ("reproduce", "--devices", "unknown word", ["table1", "--scale", "cpu", "--devices", "tpu"],
     "tpu"),
    ("reproduce", "--devices", "contradiction",
     ["table1", "--launcher", "slurm", "--devices", "0"], "--cluster-option says"),
    ("reproduce", "--devices", "no such name", ["table1", "--devices", "99"], "no GPU 99"),
    ("reproduce", "--launcher", "not a choice", ["table1", "--launcher", "slrum"], "'slurm'"),
    ("reproduce", "--jobs", "fraction for a count",
     ["table1", "--launcher", "local", "--jobs", "0.5"], "invalid int"),
    ("reproduce", "--cluster-option", "contradiction", ["table1", "--cluster-option", "a=1"],
     "add --launcher slurm"),
    ("reproduce", "--dump-logits", "not a choice", ["table1", "--dump-logits", "trian"], "'train'"),
    ("reproduce", "--results", "file for a folder", ["table1", "--results", "a_file"], "is a file"),
    ("reproduce", "--cfg-options", "letters exchanged",
     ["table1", "--scale", "digits", "--cfg-options", "modle.alpha=1"], "did you mean model?"),
    ("publish_results", "--add", "missing file", ["--add", "no.jsonl"], "no.jsonl does not exist"),
    ("publish_results", "--add", "missing part", ["--add", "rows.jsonl"], "row 1 of rows.jsonl"),
    ("publish_results", "--chekc", "letters exchanged", ["--chekc"], "did you mean --check?"),
    ("benchmark", "config", "missing", [], "nothing to measure"),
    ("benchmark", "config", "missing file", ["no.py"], "no.py does not exist"),
    ("benchmark", "config", "wrong component", ["{student}"], "no model.teacher"),
    ("benchmark", "--variants", "not a choice", ["{kd}", "--variants", "fastest"], "fastest"),
    ("benchmark", "--batch-size", "fraction for a count", ["{kd}", "--batch-size", "8.5"],
     "invalid int"),
    ("benchmark", "--workers", "negative", ["{kd}", "--workers", "-1"], "at least 0"),
    ("benchmark", "--synthetic", "fraction for a count", ["{kd}", "--synthetic", "0.5"],
     "invalid int"),
    ("benchmark", "--cfg-options", "letters exchanged", ["{kd}", "--cfg-options", "modle.alpha=1"],
     "did you mean model?"),
    ("benchmark", "--compile", "contradiction", ["{kd}", "--compile"], "goes with --losses"),
    ("benchmark", "--tau", "zero", ["--losses", "--tau", "0"], "above 0"),
    ("benchmark", "--tau", "infinite", ["--losses", "--tau", "inf"], "finite"),
    ("benchmark", "--seconds", "not a number", ["--losses", "--seconds", "nan"], "at least 0"),
    ("benchmark", "--device", "unknown word", ["--losses", "--device", "tpu9"], "take cpu"),
    ("benchmark", "--threads", "fraction for a count", ["--losses", "--threads", "1.5"],
     "invalid int"),
    ("benchmark", "--json", "folder for a file", ["--losses", "--json", "tools"], "is a folder"),
    ("report", "results", "missing folder", ["nowhere"], "nowhere"),
    ("report", "results", "missing part", ["folder.npz"], "folder.npz"),
    ("report", "results", "damaged", ["damaged"], "table1.json"),
    ("report", "--out", "folder for a file", ["results", "--out", "tools"], "is a folder"),
    ("report", "--root", "missing folder", ["results", "--root", "nowhere"], "nowhere"),
    ("report", "--json", "missing rows", ["nowhere", "--json"], "nowhere"),
]
_FIGURES = [
    ("report", row[0], f"{row[1]} of {name}", [*row[2], "--figure", name], row[3])
    for name, figure in FIGURES.items()
    for row in [
        ("results", "missing folder", ["nowhere"], "nowhere"),
        ("--experiment", "no such name", ["results", "--experiment", "tabel1"], "tabel1"),
        ("--metric", "no such name", ["results", "--metric", "test.top"], "test.top"),
        ("--root", "missing folder", ["results", "--root", "nowhere"], "nowhere"),
        ("--out", "file for a folder", ["results", "--out", "a_file"],
         "a_file is a file; name a folder"),
    ]
    if figure.NEEDS or row[0] == "--out"
] + [("report", "--figure", "not a choice", ["results", "--figure", "gird"], "'grid'")]

# fmt: on

ROWS = [*_SHARED, *_TRAIN, *_TEST, *_OTHERS, *_FIGURES]
