"""`ltx2 doctor`: is everything here that a training needs? Looks, and changes nothing."""

import json
import os
from argparse import Namespace
from dataclasses import asdict

from ltx2_job import exitcodes
from ltx2_operator.doctor import examine


def doctor(args: Namespace) -> int:
    """One line per finding, or JSON; exit code 78 if anything is to be fixed, else 0."""
    found = []
    for finding in examine(args.workspace.resolve(), os.environ):
        found.append(finding)
        if not args.json:
            print(finding, flush=True)
    fixes = sum(finding.status == "fix" for finding in found)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2, ensure_ascii=False))
    else:
        print(f"{fixes} to fix" if fixes else "nothing to fix")
    return exitcodes.CONFIG if fixes else exitcodes.OK
