"""A program named ltx2-job that only pretends: for tests of what starts it, sees it end, and stops it.

`install(folder)` writes it; a run looks into <workspace>/behaviour.json for "<stage>-<attempt>" (or "<stage>"):
{"exit": code, "word": {...}, "wait": seconds until SIGTERM, "deaf": true to ignore SIGTERM, "kill": true to die of SIGKILL,
"rank": {"1": {...}}}. Every start is a line in <workspace>/calls.jsonl: argv, env, cwd, the mounted files.
"""

import sys
from pathlib import Path

SOURCE = """#!{python}
import json, os, signal, sys, time
from pathlib import Path

argv = sys.argv[1:]
stage = argv[0]
options = dict(zip(argv[1::2], argv[2::2]))
workspace, files = Path(options["--workspace"]), Path(options["--files"])
attempt = options["--attempt"]
index = os.environ.get("JOB_COMPLETION_INDEX", "0")
call = {{"argv": argv, "env": dict(os.environ), "cwd": os.getcwd(), "files": {{p.name: p.read_text() for p in sorted(files.iterdir())}}, "pid": os.getpid()}}
with open(workspace / "calls.jsonl", "a") as log:
    log.write(json.dumps(call) + "\\n")
known = json.loads((workspace / "behaviour.json").read_text()) if (workspace / "behaviour.json").exists() else {{}}
what = known.get(stage + "-" + attempt, known.get(stage, {{}}))
what = what.get("rank", {{}}).get(index, what)
plan = json.loads((files / "plan.json").read_text())

def leave(code, **more):
    word = {{"version": 1, "run": options["--run"], "uid": os.environ["LTX2JOB_UID"], "attempt": int(attempt), "stage": stage, "exitCode": code, "message": "the stand-in left with %d" % code}}
    word.update(more)
    word.update(what.get("word", {{}}))
    Path(os.environ["LTX2JOB_TERMINATION_LOG"]).write_text(json.dumps(word))
    sys.exit(code)

if what.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: leave(85, checkpoint={{"step": 812, "path": "runs/x/checkpoints/step-0000812", "time": "2026-11-22T10:00:00Z"}}))
if "wait" in what:
    (workspace / ("ready-" + stage + "-" + attempt)).touch()
    end = time.monotonic() + what["wait"]
    while time.monotonic() < end:
        time.sleep(0.02)
if what.get("kill"):
    os.kill(os.getpid(), signal.SIGKILL)
if "signal_parent" in what:
    os.kill(os.getppid(), what["signal_parent"])
code = what.get("exit", 0)
if code == 0 and stage == "train" and not what.get("no_result"):
    config = json.loads((files / "config.json").read_text())
    run = workspace / (config.get("output_dir") or "runs/" + options["--run"])
    run.mkdir(parents=True, exist_ok=True)
    result = {{"steps": config["max_train_steps"], "finalLoss": 0.25, "seconds": 10.0, "heldOutLoss": {{"start": 0.5, "end": 0.4}}, "lora": "runs/x/lora.safetensors", "configDigest": os.environ.get("STAND_IN_DIGEST", "")}}
    (run / "lora.safetensors").write_text(json.dumps([config, plan["memory"]], sort_keys=True))
    leave(0, step=config["max_train_steps"], maxSteps=config["max_train_steps"], result=result)
leave(code)
"""


def install(folder: Path) -> Path:
    """Write the program into a folder; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ltx2-job"
    path.write_text(SOURCE.format(python=sys.executable))
    path.chmod(0o755)
    return path
