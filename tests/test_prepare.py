"""A large folder is decoded once: the same pixels as without, whenever it was killed, and never of other files."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, ganbench, settings, until
from PIL import Image

from ganbench import datasets, disk_cache
from ganbench.config import ranges
from ganbench.errors import Refused
from ganbench.image_files import View, read_picture
from ganbench.prepared import write
from ganbench.prepared.format import ARRAY, MANIFEST, SOURCES, Manifest
from ganbench.prepared.sources import Entry, Folder, known_again
from ganbench.training.footing import _data_digest
from ganbench.training.run import load_data

SHAPE = (3, 8, 8)


def photos(folder: Path, n: int, size: tuple[int, int] = (12, 10), seed: int = 0) -> list[Path]:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    files = [folder / f"{i:04d}.png" for i in range(n)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(file)
    return files


def prepare(*arguments: object, cwd: Path, **options) -> subprocess.CompletedProcess:
    return ganbench(*map(str, arguments), "--size", "8", cwd=cwd, module="ganbench.prepare", **options)


def order(root: Path, n_train: int, skip: bool = False) -> write.Order:
    names = sorted(str(file.relative_to(root)) for file in root.rglob("*.png"))
    return write.Order(
        Folder(root, names), n_train, View(SHAPE, filter="lanczos"), skip, {}, "prepare it again", "--on-error skip"
    )


def small_chunks(monkeypatch: pytest.MonkeyPatch, images: int = 4) -> None:
    monkeypatch.setattr(write, "CHUNK_BYTES", images * 3 * 8 * 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 photos and what the command has made of them, beside them; not to be changed."""
    top = tmp_path_factory.mktemp("made")
    photos(top / "photos", 30)
    (top / "photos/notes.txt").write_text("x")
    done = prepare("photos", cwd=top)
    assert done.returncode == 0, done.stderr
    assert "photos-8 is complete: 24 images to train on, 6 held out." in done.stdout
    assert "dataset=prepared dataset.root=" in done.stdout and "'dataset.shape=[3,8,8]'" in done.stdout
    assert sorted(file.name for file in (top / "photos-8").iterdir()) == [ARRAY, MANIFEST, SOURCES]
    return top


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    shutil.copytree(made, tmp_path / "own")
    manifest = tmp_path / "own/photos-8" / MANIFEST
    manifest.write_text(manifest.read_text().replace(str(made), str(tmp_path / "own")))
    return tmp_path / "own"


def test_the_pixels_are_those_of_the_folder(made: Path) -> None:
    plain = datasets.folder(str(made / "photos"), SHAPE, filter="lanczos")
    mapped = datasets.prepared(str(made / "photos-8"), SHAPE)
    assert torch.equal(mapped.train, plain.train) and torch.equal(mapped.test, plain.test)
    assert mapped.facts == plain.facts == {"train": 24, "held_out": 6, "copies": 0, "left_out": {".txt": 1}}
    assert mapped.digests == {"train": disk_cache.sha256(plain.train), "test": disk_cache.sha256(plain.test)}
    assert not torch.equal(datasets.folder(str(made / "photos"), SHAPE).train, plain.train)  # bicubic


def test_batches_of_mapped_images_are_those_of_images_in_memory(made: Path) -> None:
    data = datasets.prepared(str(made / "photos-8"), SHAPE)
    assert torch.equal(datasets.real_batch(data.train, 3, 7, 10), datasets.real_batch(data.train.clone(), 3, 7, 10))


def test_what_writes_to_mapped_images_changes_no_file_and_is_seen(made: Path) -> None:
    data = datasets.prepared(str(made / "photos-8"), SHAPE)
    before = (made / "photos-8" / ARRAY).read_bytes()
    assert _data_digest(data, "train") == disk_cache.sha256(data.train)[:12]
    data.train[0] = 0
    assert (made / "photos-8" / ARRAY).read_bytes() == before
    assert _data_digest(data, "train") == disk_cache.sha256(data.train)[:12] != data.digests["train"][:12]


def test_a_file_that_is_written_to_while_a_run_trains_on_it_is_seen(own: Path) -> None:
    """At the run's end, when it takes its footing again; touching it changes nothing."""
    file = own / "photos-8" / ARRAY
    data = datasets.prepared(str(own / "photos-8"), SHAPE)
    before = _data_digest(data, "test")
    file.touch()
    assert _data_digest(data, "test") == before
    flip(file)
    assert _data_digest(data, "test") == disk_cache.sha256(data.test)[:12] != before


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """Also one of bytes that are no text."""
    top = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    photos(Path(top, "photos"), 10)
    made = write.prepare(Path(top, "out"), order(Path(top, "photos"), 8))
    assert made.train == 8 and len(datasets.prepared(f"{top}/out", SHAPE).train) == 8


@pytest.mark.slow
def test_a_name_that_is_no_text_is_printed_as_it_is(tmp_path: Path) -> None:
    """Where Python's standard output raises an error for it, as in most locales."""
    top = os.fsencode(tmp_path) + b"/\xff"
    photos(Path(os.fsdecode(top), "photos"), 10)
    command = [sys.executable, "-m", "ganbench.prepare", "photos", "--size", "8"]
    surroundings = os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=top, env=surroundings, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(top + b"/photos-8 is complete: 8 images to train on")


def test_the_selection_split_has_digests_of_its_own(made: Path) -> None:
    root = f"dataset.root={made / 'photos-8'}"
    cfg = settings("dataset=prepared", root, "dataset.shape=[3,16,16]", "protocol.scored_on=selection")
    cfg.dataset.shape = list(SHAPE)
    data = load_data(cfg, torch.device("cpu"))
    assert (len(data.train), len(data.test)) == (20, 4)
    assert _data_digest(data, "train") == disk_cache.sha256(data.train)[:12]


@pytest.mark.parametrize("filter", ranges.FILTERS)
def test_filters_are_pillows(filter: str, tmp_path: Path) -> None:
    (file,) = photos(tmp_path / "a", 1, size=(16, 16))
    with Image.open(file) as image:
        expected = np.asarray(image.resize((8, 8), Image.Resampling[filter.upper()])).transpose(2, 0, 1)
    assert np.array_equal(read_picture(file, View(SHAPE, filter=filter)), expected)


def test_the_crop_is_the_middle(tmp_path: Path) -> None:
    (file,) = photos(tmp_path / "a", 1, size=(12, 10))
    with Image.open(file) as image:
        pixels = np.asarray(image).transpose(2, 0, 1)
    assert np.array_equal(read_picture(file, View(SHAPE, crop=8)), pixels[:, 1:9, 2:10])
    with pytest.raises(ValueError, match="12x10 pixels are fewer than the crop of 11x11"):
        read_picture(file, View(SHAPE, crop=11))


def test_options_reach_the_pixels(tmp_path: Path) -> None:
    photos(tmp_path / "photos/train", 9)
    photos(tmp_path / "photos/test", 3, seed=1)
    done = prepare("photos", "--gray", "--crop", 9, "--filter", "box", "--out", "small", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    mapped = datasets.prepared(str(tmp_path / "small"), (1, 8, 8))
    plain = datasets.folder(str(tmp_path / "photos"), (1, 8, 8), filter="box", crop=9)
    assert torch.equal(mapped.train, plain.train) and torch.equal(mapped.test, plain.test)
    assert (len(mapped.train), len(mapped.test)) == (9, 3)


def test_what_another_folder_holds_out_is_found_from_a_link(tmp_path: Path) -> None:
    """Not a file of the same name, to which `..` leads from the link itself or from where it points to."""
    photos(tmp_path / "disk/deep/photos", 10)
    (tmp_path / "link").symlink_to(tmp_path / "disk/deep/photos")
    for seed, trap in enumerate(("disk/other", "disk/deep/other", "other")):
        photos(tmp_path / trap, 3, seed=seed + 1)
    (tmp_path / "also").symlink_to(tmp_path / "other")
    for held_out, out in (("other", "a"), ("also", "b"), ("link/../other", "c")):
        done = prepare("link", "--held-out", held_out, "--out", out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        mapped = datasets.prepared(str(tmp_path / out), SHAPE)
        plain = datasets.folder(str(tmp_path / "link"), SHAPE, held_out=str(tmp_path / held_out), filter="lanczos")
        assert torch.equal(mapped.train, plain.train) and torch.equal(mapped.test, plain.test)


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(tmp_path: Path, start: Callable[..., subprocess.Popen]) -> None:
    """And its processes end with it, though nobody told them."""
    photos(tmp_path / "photos", 1500)
    command = ("photos", "--size", "128", "--out", "out")
    journal = tmp_path / "out" / write.JOURNAL
    process = start(*command, cwd=tmp_path, module="ganbench.prepare")
    until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done_before = journal.read_bytes().splitlines()
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert 1 <= len(done_before) < 1500 * 128 * 128 * 3 // write.CHUNK_BYTES
    until(lambda: not decoding(tmp_path))
    with pytest.raises(Refused, match=r"no prepared folder, since it has no manifest\.json; run"):
        datasets.prepared(str(tmp_path / "out"), (3, 128, 128))
    with journal.open("ab") as torn:
        torn.write(b'{"bytes": 99')
    again = ganbench(*command, cwd=tmp_path, module="ganbench.prepare")
    assert again.returncode == 0, again.stderr
    assert "going on after" in again.stderr
    clean = ganbench(*command[:-1], "clean", cwd=tmp_path, module="ganbench.prepare")
    assert clean.returncode == 0, clean.stderr
    assert (tmp_path / "out" / ARRAY).read_bytes() == (tmp_path / "clean" / ARRAY).read_bytes()


def decoding(folder: Path) -> list[str]:
    """The processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(folder) and "Z" not in (process / "stat").read_text().split()[2]:
                found.append(process.name)
        except OSError:
            continue
    return found


def test_it_goes_on_after_the_last_whole_chunk_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of the array or the journal was lost."""
    small_chunks(monkeypatch)
    files = photos(tmp_path / "photos", 22)
    write.prepare(tmp_path / "whole", order(tmp_path / "photos", 16))
    expected = (tmp_path / "whole" / ARRAY).read_bytes()
    damaged = files[17].read_bytes()
    files[17].write_bytes(b"x")
    stat = files[17].stat()
    place = tmp_path / "out"
    with pytest.raises(Refused, match=r"^1 of 22 images cannot be read: .*0017\.png .*--on-error skip"):
        write.prepare(place, order(tmp_path / "photos", 16))
    lines = (place / write.JOURNAL).read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    files[17].write_bytes(damaged)
    os.utime(files[17], ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    array = bytearray((place / ARRAY).read_bytes())
    array[len(array) - 4 * 192 - 10] ^= 1  # in the third chunk
    (place / ARRAY).write_bytes(array)
    read: list[int] = []
    decode = write.decode
    monkeypatch.setattr(
        write, "decode", lambda source, first, *rest: read.append(first) or decode(source, first, *rest)
    )
    write.prepare(place, order(tmp_path / "photos", 16))
    assert sorted(read) == [8, 12, 16, 20]
    assert (place / ARRAY).read_bytes() == expected


def test_an_unfinished_folder_keeps_what_has_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    files = photos(tmp_path / "photos", 22)
    files[20].write_bytes(b"x")
    place = tmp_path / "out"
    with pytest.raises(Refused, match="1 of 22"):
        write.prepare(place, order(tmp_path / "photos", 16))
    files[20].unlink()
    Image.new("RGB", (12, 10), "red").save(files[9])
    write.prepare(place, order(tmp_path / "photos", 16))
    write.prepare(tmp_path / "clean", order(tmp_path / "photos", 16))
    assert (place / ARRAY).read_bytes() == (tmp_path / "clean" / ARRAY).read_bytes()


def test_pixels_of_two_versions_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    files = photos(tmp_path / "photos", 22)
    whole = files[20].read_bytes()
    files[20].write_bytes(b"x")
    with pytest.raises(Refused, match="1 of 22"):
        write.prepare(tmp_path / "out", order(tmp_path / "photos", 16))
    files[20].write_bytes(whole)
    small_chunks(monkeypatch, images=5)
    read: list[int] = []
    decode = write.decode
    monkeypatch.setattr(write, "decode", lambda source, first, *to: read.append(first) or decode(source, first, *to))
    monkeypatch.setattr(write.PIL, "__version__", "99.0")
    write.prepare(tmp_path / "out", order(tmp_path / "photos", 16))
    assert sorted(read) == [0, 5, 10, 15, 20]
    monkeypatch.undo()
    assert write.prepare(tmp_path / "out", order(tmp_path / "photos", 16)).train == 16  # complete, whoever made it


def test_images_that_cannot_be_read_are_named_or_skipped(tmp_path: Path) -> None:
    files = photos(tmp_path / "photos", 30)
    for i in (3, 12):
        files[i].write_bytes(files[i].read_bytes()[:50])
    refused = prepare("photos", cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "2 of 30 images cannot be read: " in refused.stderr and "--on-error skip" in refused.stderr
    assert all(f"{i:04d}.png (" in refused.stderr for i in (3, 12)) and "Traceback" not in refused.stderr
    done = prepare("photos", "--on-error", "skip", cwd=tmp_path)
    assert done.returncode == 0 and ", 2 skipped." in done.stdout, done.stderr
    mapped = datasets.prepared(str(tmp_path / "photos-8"), SHAPE)
    plain = datasets.folder(str(tmp_path / "photos"), SHAPE, filter="lanczos", on_error="skip")
    assert torch.equal(mapped.train, plain.train) and torch.equal(mapped.test, plain.test)
    assert mapped.facts["left_out"] == plain.facts["left_out"] == {"unreadable": 2}
    assert [Path(name).name for name in mapped.facts["unreadable"]] == ["0003.png", "0012.png"]
    assert [Path(name).name for name in plain.facts["unreadable"]] == ["0003.png", "0012.png"]
    again = prepare("photos", cwd=tmp_path)
    assert again.returncode == 2 and "2 of 30 images cannot be read" in again.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda photos: (photos / "0004.png").write_bytes(b"other"), "0004.png has changed"),
        (lambda photos: (photos / "0004.png").unlink(), "0004.png is gone"),
    ],
)
def test_a_changed_source_is_noticed(change: Callable, message: str, own: Path) -> None:
    change(own / "photos")
    again = prepare("photos", cwd=own)
    with pytest.raises(Refused, match=rf"{message} in .*since it was prepared; undo that, or remove .*--size 8"):
        datasets.prepared(str(own / "photos-8"), SHAPE)
    assert (
        again.returncode == 2 and message in again.stderr and "prepare it again, or into another folder" in again.stderr
    )


def test_files_that_were_only_touched_have_not_changed(own: Path) -> None:
    """As after a copy that does not keep times; the same size and another content is a change."""
    touched = own / "photos/0004.png"
    touched.touch()
    assert prepare("photos", cwd=own).returncode == 0
    assert len(datasets.prepared(str(own / "photos-8"), SHAPE).train) == 24
    content = bytearray(touched.read_bytes())
    content[-1] ^= 1
    touched.write_bytes(content)
    with pytest.raises(Refused, match=r"0004\.png has changed"):
        datasets.prepared(str(own / "photos-8"), SHAPE)


def test_a_source_file_that_cannot_be_read_any_more_is_named(own: Path) -> None:
    """One whose status cannot be asked for, and one that is looked into because its time is another."""
    lost = own / "photos/0004.png"
    lost.unlink()
    lost.symlink_to(lost)
    with pytest.raises(Refused, match=r"0004\.png cannot be read \(Too many levels .*\); make it readable, or put it"):
        datasets.prepared(str(own / "photos-8"), SHAPE)
    lost.unlink()
    with pytest.raises(Refused, match=r"0004\.png cannot be read \(No such file .*\); make it readable, or put it"):
        known_again(lost.parent, [[lost.name, 99, 1, "5" * 64]], [Entry(lost.name, 99, 2)])


def test_what_to_do_is_said_for_any_folder(tmp_path: Path) -> None:
    """A run says it from where it was started, maybe elsewhere; in `--out=~/out` no shell reads `~` as one's home."""
    for seed, name in enumerate(("photos", "others")):
        photos(tmp_path / name, 12, seed=seed)
    done = prepare("photos", "--held-out=~/others", "--out=~/out", cwd=tmp_path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (tmp_path / "photos/0003.png").unlink()
    with pytest.raises(Refused) as refused:
        datasets.prepared(str(tmp_path / "out"), SHAPE)
    says = f"or remove {tmp_path / 'out'} and prepare it again, or into another folder: `python -m ganbench.prepare "
    assert says in str(refused.value)
    assert f"--held-out {tmp_path / 'others'} --out {tmp_path / 'out'}`" in str(refused.value)


def test_a_new_image_is_noticed(own: Path) -> None:
    photos(own / "photos/more", 1)
    again = prepare("photos", cwd=own)
    assert again.returncode == 2 and "more/0000.png is new" in again.stderr
    with pytest.raises(Refused, match=r"more/0000\.png is new in .*since it was prepared"):
        datasets.prepared(str(own / "photos-8"), SHAPE)


def test_a_new_image_of_another_folder_is_noticed(tmp_path: Path) -> None:
    """Which holds the images that are held out; as one of the folder itself."""
    for seed, name in enumerate(("photos", "others")):
        photos(tmp_path / name, 12, seed=seed)
    assert prepare("photos", "--held-out", "others", cwd=tmp_path).returncode == 0
    datasets.prepared(str(tmp_path / "photos-8"), SHAPE)
    photos(tmp_path / "others/more", 1)
    with pytest.raises(Refused, match=r"\.\./others/more/0000\.png is new in .*since it was prepared"):
        datasets.prepared(str(tmp_path / "photos-8"), SHAPE)
    shutil.rmtree(tmp_path / "others")
    with pytest.raises(Refused, match=r"\.\./others/0000\.png is gone in"):
        datasets.prepared(str(tmp_path / "photos-8"), SHAPE)


def test_without_its_source_it_is_used_all_the_same(own: Path) -> None:
    shutil.rmtree(own / "photos")
    assert len(datasets.prepared(str(own / "photos-8"), SHAPE).train) == 24


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (ARRAY, lambda file: os.truncate(file, 500), r"has 500 bytes, expected 5,888; remove .*`python -m"),
        (ARRAY, lambda file: flip(file), r"images\.npy is damaged: images 0 to 29 are not what was prepared"),
        (ARRAY, lambda file: file.unlink(), r"images\.npy cannot be read \(No such file"),
        (MANIFEST, lambda file: file.write_text("{"), r"damaged manifest\.json"),
        (MANIFEST, lambda file: file.write_text("{}"), r"damaged manifest\.json"),
        (SOURCES, lambda file: flip(file), r"sources\.json is not what was written"),
    ],
)
def test_a_damaged_folder_is_refused(name: str, damage: Callable, message: str, own: Path) -> None:
    damage(own / "photos-8" / name)
    with pytest.raises(Refused, match=message) as refused:
        datasets.prepared(str(own / "photos-8"), SHAPE)
    assert "\n" not in str(refused.value)


def test_an_array_is_verified_once_and_again_when_it_changes(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GANBENCH_CACHE", str(tmp_path / "cache"))
    caplog.set_level("INFO", "ganbench")
    root = own / "photos-8"
    for _ in range(2):
        datasets.prepared(str(root), SHAPE)
    assert caplog.text.count("verifying ") == 1
    before = (root / ARRAY).stat()
    flip(root / ARRAY)
    os.utime(root / ARRAY, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(Refused, match="is damaged"):
        datasets.prepared(str(root), SHAPE)


def test_a_disk_without_room_is_refused_at_once(small_disk: Path, tmp_path: Path) -> None:
    """Of its 40 MB, ten images of 3 MB leave no room for ten more."""
    photos(tmp_path / "photos", 10)
    first, second = (
        ganbench("photos", "--size", "1024", "--out", str(small_disk / out), cwd=tmp_path, module="ganbench.prepare")
        for out in ("first", "second")
    )
    assert first.returncode == 0, first.stderr
    assert second.returncode == 2, second.stderr
    assert f"{small_disk}/second needs 31 MB more, and its disk has 10 MB free; make room" in second.stderr
    assert (small_disk / "second" / ARRAY).stat().st_size == 128  # the head alone


def test_the_top_folder_is_refused_like_any_other(tmp_path: Path) -> None:
    refused = prepare("/", cwd=tmp_path)
    assert refused.returncode == 2 and refused.stderr.startswith("--out /-8 lies in /, among the images"), (
        refused.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--filter", "box"), "was made with filter lanczos, not box"),
        (("--filter", "sinc"), "invalid choice: 'sinc'"),
        (("--out", "photos/small"), "lies in photos, among the images"),
        (("--out", "other"), "other is there and was not made by ganbench; move it"),
        (("--out", "/proc/x"), "/proc/x cannot be written ("),  # not waited for, as for a lock that is held
        (("--held-out", "nowhere"), "nowhere does not exist"),
        (("--test-share", "1.5"), "1.5 must be a number > 0 and < 1"),
        (("--background", "wite"), "wite must be a color"),
        (("--held-out", "other"), "--held-out other must hold at least 2 images"),
        (
            ("--held-out", "photos-8"),
            "--held-out photos-8 was prepared by ganbench.prepare; use dataset=prepared dataset",
        ),
    ],
)
def test_what_cannot_be_prepared_is_refused(arguments: tuple, message: str, own: Path) -> None:
    (own / "other").mkdir()
    (own / "other/mine.txt").write_text("x")
    refused = prepare("photos", *arguments, cwd=own)
    assert refused.returncode == 2 and message in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr


def test_another_shape_is_refused_before_anything_is_written(made: Path, tmp_path: Path) -> None:
    options = ("dataset=prepared", f"dataset.root={made / 'photos-8'}", "wandb=disabled", "device=cpu")
    refused = ganbench(*options, cwd=tmp_path)
    assert refused.returncode == 2 and "pass dataset.shape=[3,8,8]" in refused.stderr, refused.stderr
    refused = ganbench(*options[:1], f"dataset.root={made / 'photos'}", *options[2:], cwd=tmp_path)
    assert refused.returncode == 2 and "is no prepared folder" in refused.stderr, refused.stderr
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Refused, match=r"was prepared by ganbench.prepare; use dataset=prepared dataset\.root="):
        datasets.folder(str(made / "photos-8"))


@pytest.mark.slow
def test_a_run_on_mapped_images_is_that_on_images_in_memory(tmp_path: Path) -> None:
    photos(tmp_path / "photos", 200, size=(20, 20))
    arguments = ("photos", "--gray", "--filter", "bicubic", "--out", "small", "--size", "32")
    done = ganbench(*arguments, cwd=tmp_path, module="ganbench.prepare")
    assert done.returncode == 0, done.stderr
    metrics = []
    for name, root in (("folder", "photos"), ("prepared", "small")):
        options = (f"dataset={name}", f"dataset.root={root}", "dataset.shape=[1,32,32]", "metric=fd_lenet")
        run = ganbench(*options, "experiment=smoke", "wandb=disabled", f"name={name}", "device=cpu", cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        folder = tmp_path / "outputs/run" / name
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        metrics.append([{key: row[key] for key in row if not key.startswith("t_")} for row in rows])
        footing = json.loads((folder / "footing.json").read_text())["equal"]
        metrics.append((footing["train_data"], footing["held_out_data"]))
    assert metrics[:2] == metrics[2:]


def test_a_manifest_reads_as_it_was_written(made: Path) -> None:
    manifest = Manifest.read(made / "photos-8")
    assert manifest.view == View(SHAPE, "white", "lanczos", None)
    files = json.loads((made / "photos-8" / SOURCES).read_text())
    assert len(files) == 30 and all(len(sha256) == 64 for *_, sha256 in files)
