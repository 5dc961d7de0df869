import os

import pytest

from jobmon.server.output_files import MATCHES_MAX, OutputFiles, Unreadable
from jobmon.server.problems import InvalidValue


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "logs").mkdir(parents=True)
    return folder


@pytest.fixture
def files(data):
    return OutputFiles(data)


def written(folder, content, name="out.log"):
    path = folder / name
    path.write_bytes(content)
    return str(path)


def test_ranges_join_to_the_whole_file_whatever_characters_they_cut(files, tmp_path):
    text = "täsk €uro 😀 \n" * 300
    path = written(tmp_path, text.encode())
    for most in (5, 7, 64, 1000):
        found, at = "", 0
        while (part := files.part(path, at, most)).end > at:
            assert (part.start, part.size) == (at, len(text.encode()))
            found, at = found + part.text, part.end
        assert found == text


def test_the_end_is_counted_from_the_end_and_begins_with_a_whole_character(files, tmp_path):
    path = written(tmp_path, "x€€".encode())
    part = files.part(path, -4, 100)
    assert (part.text, part.start, part.end, part.size) == ("€", 4, 7, 7)
    assert files.part(path, -100, 100).text == "x€€"
    assert files.part(path, 99, 100).text == ""


def test_bytes_that_are_no_text_are_shown_and_passed(files, tmp_path):
    path = written(tmp_path, b"a\xff\xfe\x00b\xf0")
    part = files.part(path, 0, 100)
    assert part.text.startswith("a��\0b")
    assert files.part(written(tmp_path, b""), 0, 10).text == ""


@pytest.mark.parametrize("most", [0, -1, 10**9])
def test_a_range_that_is_too_large_is_refused(files, tmp_path, most):
    with pytest.raises(InvalidValue, match="most"):
        files.part(written(tmp_path, b"x"), 0, most)


def test_a_word_is_found_once_per_line_across_blocks_in_upper_or_lower_case(files, tmp_path):
    filler = b"." * 99 + b"\n"
    lines = [filler] * 30_000
    wanted = [5, 10_485, 10_486, 29_999]
    for number in wanted:
        lines[number] = b"here is a Needle, and a needle".ljust(99) + b"\n"
    path = written(tmp_path, b"".join(lines))
    found = files.search(path, "NEEDLE", 0)
    assert [match.at for match in found.matches] == [number * 100 + 10 for number in wanted]
    assert found.matches[0].line.startswith("here is a Needle")
    assert found.next is None
    assert [match.at for match in files.search(path, "needle", 1_000_000).matches] == [1_048_510, 1_048_610, 2_999_910]


def test_a_search_with_too_many_matches_says_where_to_go_on(files, tmp_path):
    path = written(tmp_path, b"error\n" * (MATCHES_MAX + 50))
    found = files.search(path, "", 0)
    assert len(found.matches) == MATCHES_MAX
    rest = files.search(path, "", found.next)
    assert (len(rest.matches), rest.next) == (50, None)


def test_a_long_file_is_searched_in_several_requests(files, tmp_path, monkeypatch):
    monkeypatch.setattr("jobmon.server.output_files.SEARCH_BYTES_MAX", 1024 * 1024)
    path = written(tmp_path, b"x" * 1024 * 1024 + b"\nneedle\n")
    found = files.search(path, "needle", 0)
    assert (found.matches, found.next) == ([], 1024 * 1024)
    assert [match.line for match in files.search(path, "needle", found.next).matches] == ["needle"]


def test_the_first_error_of_a_log_is_found_without_a_word(files, tmp_path):
    log = b"loading\nno errors so far\n\x1b[31mConnectionError\x1b[0m: refused\nmore\n"
    (match,) = files.search(written(tmp_path, log), "", 0).matches
    assert "ConnectionError" in match.line


@pytest.mark.parametrize(("mode", "is_shown"), [(0o755, True), (0o777, False), (0o1777, False)])
def test_a_second_name_of_a_file_is_shown_only_where_others_cannot_have_made_it(files, tmp_path, mode, is_shown):
    path = written(tmp_path, b"secret", "key")
    folder = tmp_path / "out"
    folder.mkdir()
    folder.chmod(mode)
    os.link(path, folder / "out.log")
    if is_shown:
        assert files.part(f"{folder}/out.log", 0, 10).text == "secret"
    else:
        with pytest.raises(Unreadable, match="several names"):
            files.part(f"{folder}/out.log", 0, 10)


def test_links_of_others_and_links_as_the_file_itself_are_not_followed(files, tmp_path):
    real = tmp_path / "scratch"
    real.mkdir()
    path = written(real, b"text")
    (tmp_path / "mine").symlink_to("scratch")
    (tmp_path / "up").symlink_to("mine/../scratch")
    assert files.part(f"{tmp_path}/mine/out.log", 0, 10).text == "text"
    assert files.part(f"{tmp_path}/up/out.log", 0, 10).text == "text"
    (tmp_path / "link.log").symlink_to(path)
    with pytest.raises(Unreadable, match="symbolic link"):
        files.part(f"{tmp_path}/link.log", 0, 10)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Unreadable):
        files.part(f"{tmp_path}/loop/out.log", 0, 10)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: files of a second user")
def test_what_belongs_to_another_user_is_not_shown(files, tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    path = written(folder, b"theirs")
    (tmp_path / "theirs").symlink_to("scratch")
    os.chown(tmp_path / "theirs", 65534, 65534, follow_symlinks=False)
    with pytest.raises(Unreadable, match="another user"):
        files.part(f"{tmp_path}/theirs/out.log", 0, 10)
    os.chown(path, 65534, 65534)
    with pytest.raises(Unreadable, match="not a regular file of yours"):
        files.part(path, 0, 10)


def test_secrets_of_the_data_folder_devices_and_folders_are_not_shown(files, data, tmp_path):
    written(data, b"token", "server.json")
    assert files.part(written(data / "logs", b"log"), 0, 10).text == "log"
    (tmp_path / "way").symlink_to(data)
    for path in (f"{data}/server.json", f"{tmp_path}/way/server.json", f"{data}/logs/../server.json", f"{data}/logs"):
        with pytest.raises(Unreadable):
            files.part(path, 0, 10)
    for path in ("/dev/zero", str(tmp_path), "relative.log", "/proc/self/environ/x", f"{tmp_path}/missing.log"):
        with pytest.raises(Unreadable):
            files.part(path, 0, 10)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unreadable, match="not a regular file"):
        files.part(f"{tmp_path}/pipe", 0, 10)
