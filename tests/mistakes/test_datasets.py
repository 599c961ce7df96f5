"""Mistakes in the file of the datasets, by `ltx2 train`, and in the folders that it names."""

import pytest

from mistakes.cases import DATASETS, Mistake, both, edit, mistake, names, try_it, write

FILE, CONFIG = "config/multidatabackend.json", "config/config.json"
LOCAL, BUCKET = '"type": "local"', '"type": "aws", "aws_bucket_name": "fox"'
FOLDER = '"instance_data_dir": "clips",'
ID, KIND, VIDEO = '"id": "clips"', '"dataset_type": "video"', '{ "num_frames": 9 }'


def dataset(name, code, *says, old=ID, new="", change=None):
    """A mistake in the dataset file: `new` in place of `old`."""
    return mistake(name, code, *says, change=change or edit(old, new, FILE), argv="train")


def extra(name, key, value, *says):
    """A mistake in one key that is added to the dataset."""
    return dataset(name, 78, f"datasets[0].{key}", *says, new=f'{ID}, "{key}": {value}')


def elsewhere(name, key, value, *says):
    """A mistake in one key of a dataset in an object store."""
    bucket = "" if key == "aws_bucket_name" else ', "aws_bucket_name": "fox"'
    return dataset(name, 78, f"datasets[0].{key}", *says, change=moved(f'"type": "aws"{bucket}, "{key}": "{value}"'))


def moved(place):
    """Clips that lie elsewhere: `place` is what says where."""
    return both(edit(LOCAL, place, FILE), edit(FOLDER, "", FILE))


def video(name, value, *says):
    """A mistake in the video block."""
    return dataset(name, 78, "datasets[0].video", *says, old=VIDEO, new=value)


def link_to_itself(place):
    """A folder of clips that is a link to itself."""
    place.edit(FILE, '"clips",\n    "caption', '"loop",\n    "caption')
    (place.root / "loop").symlink_to("loop")


MISTAKES = [
    # ---- the file
    dataset("no file", 78, "data_backend_config", "nowhere.json", "No such file", change=edit(FILE, "nowhere.json", CONFIG)),
    dataset("a folder", 78, "data_backend_config", "Is a directory", change=edit(FILE, "config", CONFIG)),
    dataset("not named", 78, "datasets", "there are none", "data_backend_config", change=edit(f',\n  "data_backend_config": "{FILE}"', "", CONFIG)),
    dataset("an object", 78, "must be a list of datasets", "write [ {…}, {…} ]", change=write(DATASETS.strip()[1:-1], FILE)),
    dataset("empty", 78, FILE, "not valid JSON", "repair the file", change=write("", FILE)),
    dataset("a comma too many", 78, FILE, "line 10", "repair the file", old=VIDEO, new=VIDEO + ","),
    dataset("a comment", 78, FILE, "line 3", "repair the file", old=ID, new="// mine\n" + ID),
    dataset("a key twice", 78, FILE, "'id' is set twice", "keep one", new=f'{ID}, "id": "other"'),
    dataset("not UTF-8", 78, FILE, "UTF-8", change=write(DATASETS.replace("clips", "füchse").encode("latin-1"), FILE)),
    dataset("utf-16", 78, FILE, "UTF-8", change=write(DATASETS.encode("utf-16"), FILE)),
    dataset("an empty list", 78, "datasets", "no enabled dataset", "add an entry", change=write("[]", FILE)),
    dataset("a word in the list", 78, "datasets[0]", "must be an object, not 'clips'", "{id:", change=write('["clips"]', FILE)),
    # ---- the entry
    dataset("no id", 78, "datasets[0].id", "is required", "write it", new='"repeats": 0'),
    dataset("an empty id", 78, "datasets[0].id", "required", new='"id": ""'),
    dataset("an id twice", 78, "datasets[1].id", "'clips' is also the id of datasets[0]", change=write(DATASETS.strip()[:-1] + "," + DATASETS.strip()[1:], FILE)),
    dataset("a type that does not exist", 78, "datasets[0].dataset_type", "'film'", "write one of", old=KIND, new='"dataset_type": "film"'),
    dataset("a type misspelt", 78, "datasets[0].dataset_type", "'vidoe'", "did you mean video?", old=KIND, new='"dataset_type": "vidoe"'),
    dataset("a type that comes later", 78, "datasets[0].dataset_type", "not supported yet", old=KIND, new='"dataset_type": "image"'),
    dataset("nothing to train on", 78, "no enabled dataset to train on", "dataset_type: video", old=KIND, new='"dataset_type": "eval"'),
    dataset("all switched off", 78, "there is no enabled dataset", "add an entry", new=f'{ID}, "disabled": true'),
    extra("a key misspelt", "capton_strategy", '"textfile"', "unknown key", "did you mean caption_strategy?"),
    extra("a key of config.json", "learning_rate", "1", "unknown key", "it belongs in config"),
    extra("negative repeats", "repeats", "-1", "must be 0 or more, not -1"),
    dataset("a probability that is none", 78, f"{FILE} is not valid JSON: line 3", "NaN", "write a finite number", new=f'{ID}, "probability": NaN'),
    extra("no probability at all", "probability", "-0.5", "must be 0 or more"),
    dataset("a resolution of nothing", 78, "datasets[0].resolution", "must be above 0, not 0", old='"resolution": 64', new='"resolution": 0'),
    dataset("a resolution in words", 78, "datasets[0].resolution", "must be a number, not '512px'", old='"resolution": 64', new='"resolution": "512px"'),
    dataset("captions by a way that does not exist", 78, "datasets[0].caption_strategy", "'txtfile'", "did you mean textfile?", old='"textfile"', new='"txtfile"'),
    dataset("a prompt for all that is not there", 78, "datasets[0].instance_prompt", "is required", "write the caption", old='"textfile"', new='"instanceprompt"'),
    extra("captions kept elsewhere", "text_embeds", '"texts"', "no text_embeds entry with id 'texts'", "remove it"),
    # ---- clips that lie elsewhere
    dataset("no bucket", 78, "datasets[0].aws_bucket_name", "is required", "name the bucket", change=moved('"type": "aws"')),
    dataset("no repository", 78, "datasets[0].dataset_name", "is required", "owner/name", change=moved('"type": "huggingface"')),
    dataset("a folder beside a bucket", 78, "datasets[0].instance_data_dir", "is 'clips', but the type is aws", "remove it, or write type: local", old=LOCAL, new=BUCKET),
    dataset("a folder beside a repository", 78, "datasets[0].instance_data_dir", "is 'clips', but the type is huggingface", "remove it", old=LOCAL, new='"type": "huggingface", "dataset_name": "me/fox"'),
    extra("a bucket without its type", "aws_bucket_name", '"fox"', "is 'fox', but the type is local", "write type: aws"),
    extra("a prefix without its type", "aws_data_prefix", '"fox"', "is 'fox', but the type is local", "write type: aws"),
    extra("a store without its type", "aws_endpoint_url", '"http://fox"', "is 'http://fox', but the type is local", "write type: aws"),
    extra("a region without its type", "aws_region_name", '"eu-west-1"', "is 'eu-west-1', but the type is local", "write type: aws"),
    extra("a repository without its type", "dataset_name", '"me/fox"', "is 'me/fox', but the type is local", "write type: huggingface"),
    extra("a revision without its type", "revision", '"v2"', "is 'v2', but the type is local", "write type: huggingface"),
    extra("a folder of a repository without its type", "data_prefix", '"fox"', "is 'fox', but the type is local", "write type: huggingface"),
    elsewhere("a bucket with a scheme", "aws_bucket_name", "s3://fox/clips", "'s3://fox/clips' is no name of a bucket", "without s3://"),
    elsewhere("a store without a scheme", "aws_endpoint_url", "minio:9000", "'minio:9000' is no address", "write https://host"),
    elsewhere("keys in the address", "aws_endpoint_url", "http://AKIA:pass@minio", "'http://…@minio' is no address", "without a name and a password"),
    elsewhere("a prefix that leads out", "aws_data_prefix", "../fox", "'../fox' is no folder", "footage/foxes"),
    elsewhere("a key in the file", "aws_access_key_id", "AKIA", "known, not offered: keys of an object store stand in no file", "spec.secrets.objectStore", "AWS_ACCESS_KEY_ID"),
    elsewhere("a secret in the file", "aws_secret_access_key", "AKIA", "known, not offered: keys of an object store stand in no file", "remove it"),
    dataset("a repository that is an address", 78, "datasets[0].dataset_name", "'https://huggingface.co/datasets/me/fox' is no repository", "write owner/name", change=moved('"type": "huggingface", "dataset_name": "https://huggingface.co/datasets/me/fox"')),
    dataset("captions kept in a bucket", 78, "datasets[1].type", "is aws: encoded captions are kept on the volume", "write type: local", change=write(DATASETS.strip()[:-1] + ', {"id": "texts", "dataset_type": "text_embeds", "type": "aws", "aws_bucket_name": "fox"}]', FILE)),
    # ---- its blocks
    video("a key misspelt in the video block", '{ "num_framez": 9 }', "num_framez: unknown key", "did you mean num_frames?"),
    video("a video block that is a number", "9", "must be an object, not 9", "write { … }"),
    video("no frames", '{ "num_frames": 0 }', "num_frames", "must be 1 or more, not 0"),
    video("frames in words", '{ "num_frames": "all" }', "num_frames", "must be a whole number, not 'all'"),
    video("shorter than short", '{ "num_frames": 17, "max_frames": 9 }', "max_frames", "is 9, min_frames is 17", "raise max_frames"),
    video("a rate beyond all cameras", '{ "num_frames": 9, "frame_rate": 1000 }', "frame_rate", "must be 240 or less, not 1000"),
    extra("an audio block that is a list", "audio", "[]", "must be an object, not []", "write { … }"),
    # ---- what it points at
    dataset("no folder named", 78, "datasets[0].instance_data_dir", "is required", "name the folder", old='"instance_data_dir": "clips",', new=""),
    dataset("a folder that is not there", 66, "datasets[clips].instance_data_dir: videos", "no such folder", "put the clips there", old='"clips",\n    "caption', new='"videos",\n    "caption'),
    dataset("a folder that is a file", 66, "datasets[clips].instance_data_dir: clips/a.mp4", "is a file", "name the folder", old='"clips",\n    "caption', new='"clips/a.mp4",\n    "caption'),
    dataset("a folder without a clip", 66, "datasets[clips].instance_data_dir: config", "no video file in it", ".mp4", old='"clips",\n    "caption', new='"config",\n    "caption'),
    dataset("a folder that is a link to itself", 66, "datasets[clips].instance_data_dir: loop", "no such folder", change=link_to_itself),
    dataset("only hidden clips", 66, "datasets[clips].instance_data_dir: clips", "no video file in it", change=lambda place: (place.root / "clips/a.mp4").rename(place.root / "clips/.a.mp4")),
    dataset("only pictures", 66, "datasets[clips].instance_data_dir: clips", "no video file in it", change=both(lambda place: (place.root / "clips/a.mp4").rename(place.root / "clips/a.jpg"))),
    dataset("a home that nobody has", 78, "~nosuchuser/clips", "no home", "write the whole path", old='"clips",\n    "caption', new='"~nosuchuser/clips",\n    "caption'),
]  # fmt: skip


@pytest.mark.parametrize("one", MISTAKES, ids=names(MISTAKES))
def test_a_mistake_in_the_datasets_is_named_and_leaves_nothing(one: Mistake, place, started, temporary, capfd):
    try_it(one, place, started, temporary, capfd)
