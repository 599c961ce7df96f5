"""A program named ltx2-job that only pretends: for tests of what starts it, sees it end, and stops it.

`install(folder)` puts it there. A run looks into <workspace>/behaviour.json for "<stage>-<attempt>" (or "<stage>"):
{"exit": code, "word": {...}, "after": number of starts to wait for, "wait": seconds until SIGTERM, "deaf": true to
ignore SIGTERM, "lingers": true to leave its last word at SIGTERM and go on, "kill": true to die of SIGKILL,
"no_result": true, "rank": {"1": {...}}}. Every start is a line in <workspace>/calls.jsonl: argv, environment, working
folder, the mounted files.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

CHECKPOINT = {"step": 812, "path": "runs/x/checkpoints/step-0000812", "time": "2026-11-22T10:00:00Z"}


def install(folder: Path) -> Path:
    """Write the program into a folder; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ltx2-job"
    here = str(Path(__file__).resolve())
    path.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({here!r}, run_name='__main__')\n")
    path.chmod(0o755)
    return path


def main() -> None:
    """Do as behaviour.json says."""
    argv = sys.argv[1:]
    stage = argv[0]
    if stage == "clips":  # asked by `ltx2 check`
        print("the stand-in looked at the clips")
        return
    options = dict(zip(argv[1::2], argv[2::2], strict=True))
    workspace, files, attempt = Path(options["--workspace"]), Path(options["--files"]), options["--attempt"]
    mounted = {path.name: path.read_text() for path in sorted(files.iterdir())}
    call = {"argv": argv, "env": dict(os.environ), "cwd": os.getcwd(), "files": mounted}
    with (workspace / "calls.jsonl").open("a") as log:
        log.write(json.dumps(call) + "\n")
    known = json.loads((workspace / "behaviour.json").read_text()) if (workspace / "behaviour.json").exists() else {}
    what = known.get(f"{stage}-{attempt}", known.get(stage, {}))
    what = what.get("rank", {}).get(os.environ.get("JOB_COMPLETION_INDEX", "0"), what)

    def say(code: int, **more: object) -> None:
        word = {
            "version": 1, "run": options["--run"], "uid": os.environ["LTX2JOB_UID"], "attempt": int(attempt),
            "stage": stage, "exitCode": code, "message": f"the stand-in left with {code}", **more,
            **what.get("word", {}),
        }  # fmt: skip
        Path(os.environ["LTX2JOB_TERMINATION_LOG"]).write_text(json.dumps(word))

    def leave(code: int, **more: object) -> None:
        say(code, **more)
        sys.exit(code)

    if what.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif what.get("lingers"):
        signal.signal(signal.SIGTERM, lambda *_: (say(85, checkpoint=CHECKPOINT), (workspace / "said").touch()))
    else:
        signal.signal(signal.SIGTERM, lambda *_: leave(85, checkpoint=CHECKPOINT))
    while len((workspace / "calls.jsonl").read_text().splitlines()) < what.get("after", 0):
        time.sleep(0.01)
    if "wait" in what:
        (workspace / f"ready-{stage}-{attempt}").touch()
        end = time.monotonic() + what["wait"]
        while time.monotonic() < end:
            time.sleep(0.02)
    if what.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    code = what.get("exit", 0)
    if code == 0 and stage == "train" and not what.get("no_result"):
        config, plan = json.loads(mounted["config.json"]), json.loads(mounted["plan.json"])
        steps = config["max_train_steps"]
        run = workspace / (config.get("output_dir") or f"runs/{options['--run']}")
        run.mkdir(parents=True, exist_ok=True)
        (run / "lora.safetensors").write_text(json.dumps([config, plan["memory"]], sort_keys=True))
        losses = {"start": 0.5, "end": 0.4}
        result = {"steps": steps, "finalLoss": 0.25, "seconds": 10.0, "heldOutLoss": losses, "lora": "lora.safetensors"}
        leave(0, step=steps, maxSteps=steps, result=result)
    leave(code)


if __name__ == "__main__":
    main()
