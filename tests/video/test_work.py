"""The work folder of a film that somebody else has prepared: nothing leads out of it, no shape of it stops the work."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codeformer.errors import OutputError
from codeformer.video.summary import StretchNotes, join_tracks, total
from codeformer.video.work import WorkFolder, work_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")

RECORD = {**StretchNotes().record(), "duration": 1, "until": 10}


def finish(work: WorkFolder, number: int) -> None:
    work.unfinished(number).write_bytes(b"abc")
    work.finish(number, RECORD)


@pytest.mark.parametrize("name", ["lock", "work.json", "00000.json", "00000.part", "film.part.mp4"])
@pytest.mark.parametrize("what", ["link", "second name", "pipe"])
def test_planted_files_are_not_written_through(tmp_path: Path, name: str, what: str) -> None:
    victim, output = tmp_path / "victim", tmp_path / "out.mp4"
    victim.write_bytes(b"precious")
    folder = work_folder(output)
    folder.mkdir()
    if what == "link":
        (folder / name).symlink_to(victim)
    elif what == "second name":
        os.link(victim, folder / name)
    else:
        os.mkfifo(folder / name)
    try:
        work = WorkFolder(output, "a", resume=True)
        finish(work, 0)
        assert [record["bytes"] for record in work.finished()] == [3]
        assert not os.path.lexists(folder / "film.part.mp4")
        work.release()
    except OutputError as error:
        assert name == "lock" and "choose" in str(error)
    assert victim.read_bytes() == b"precious"


def test_a_link_to_a_folder_is_no_work_folder(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "a.png").write_bytes(b"precious")
    work_folder(tmp_path / "out.mp4").symlink_to(tmp_path / "photographs")
    with pytest.raises(OutputError, match="is a link"):
        WorkFolder(tmp_path / "out.mp4", "a", resume=False)
    assert [path.name for path in (tmp_path / "photographs").iterdir()] == ["a.png"]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["bytes", "first", "box"]), inner),
    max_leaves=5,
)


names = st.sampled_from(["00000", "work"])


@given(key=st.sampled_from([*RECORD, "bytes"]), value=values, whole=st.booleans(), name=names)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_record_of_another_shape_is_done_again(
    tmp_path: Path, key: str, value: object, whole: bool, name: str
) -> None:
    output = tmp_path / "out.mp4"
    work = WorkFolder(output, "a", resume=False)
    finish(work, 0)
    path = work.path / f"{name}.json"
    changed = value if whole else {**json.loads(path.read_bytes()), key: value}
    path.write_text(json.dumps(changed))
    work.release()
    work = WorkFolder(output, "a", resume=True)
    records = work.finished()
    work.release()
    join_tracks(records)
    assert total(records, "frames") == sum(record["frames"] for record in records)


def test_what_grows_with_the_faces_stays_on_the_disk(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "out.mp4", "a", resume=False)
    for number in range(3):
        finish(work, number)
    assert ["tracks" in record for record in work.finished()] == [False, False, True]  # the last one's go on
    assert [record["tracks"] for record in work.whole(3)] == [RECORD["tracks"]] * 3
    (work.path / "00001.json").unlink()
    with pytest.raises(OutputError, match="stretch 1 was removed or changed"):
        list(work.whole(3))


def test_two_workers_on_one_stretch_do_not_write_into_one_file(tmp_path: Path) -> None:
    """As where the driver of one was killed, and another one starts."""
    WorkFolder(tmp_path / "film.mp4", "a", resume=True).release()
    one, other = (WorkFolder(tmp_path / "film.mp4", "a", shared=True) for _ in range(2))
    assert one.unfinished(3) != other.unfinished(3) and one.packets(3) == other.packets(3)
    with pytest.raises(OutputError, match="of another device or other settings"):
        WorkFolder(tmp_path / "film.mp4", "b", shared=True)
