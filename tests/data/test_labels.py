"""From folders, CSV files and columns to numbers of classes."""

import pytest
from pictures import contents, in_folder, in_parquet, in_tar, in_zip, stored, tree

FILES = {b"a/1.png": b"1", b"a/2.png": b"2", b"b/3.png": b"3"}


def table(path, *rows):
    path.write_text("\n".join(["name,label", *rows]) + "\n", encoding="utf-8")
    return path


def test_the_first_folder_of_any_number_of_levels(tmp_path):
    files = {b"b/x/y/1.png": b"1", b"a/2.png": b"2", b"a/x/3.png": b"3"}
    for path in (in_folder(files, tmp_path / "it"), in_zip(files, tmp_path / "it.zip")):
        assert contents(stored(path)) == [("a", b"2"), ("a", b"3"), ("b", b"1")]


def test_a_folder_is_taken_at_its_word_and_an_archive_is_unwrapped(tmp_path):
    files = {b"all/" + name: data for name, data in FILES.items()}
    assert stored(in_folder(files, tmp_path / "it")).class_names == ("all",)
    assert stored(in_tar(files, tmp_path / "it.tar")).class_names == ("a", "b")
    one = in_tar({b"all/a/1.png": b"", b"all/a/2.png": b""}, tmp_path / "one.tar")
    assert stored(one).class_names == ("a",)


def test_images_outside_of_folders_have_no_label(tmp_path):
    path = in_folder(FILES | {b"4.png": b"4"}, tmp_path / "it")
    with pytest.raises(
        ValueError, match=r"1 of 4 images .* 4\.png lies in no folder; set data.lab"
    ):
        stored(path)


def test_a_table_beside_the_images_or_in_the_working_directory(tmp_path, monkeypatch):
    rows = ["a/1.png,cat", "b/3.png,ant", "a/2.png,bee", "c/no.png,dog"]
    path = in_folder(FILES, tmp_path / "it")
    wanted = [("ant", b"3"), ("bee", b"2"), ("cat", b"1")]
    table(path / "labels.csv", *rows)
    archive = in_zip(FILES, tmp_path / "it.zip")
    table(tmp_path / "labels.csv", *rows)
    assert contents(stored(path, "labels.csv")) == wanted
    assert contents(stored(archive, "labels.csv")) == wanted
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    table(tmp_path / "here" / "labels.csv", *[row[:-3] + "one" for row in rows])
    assert stored(path, "labels.csv").class_names == ("one",)
    with pytest.raises(ValueError, match=r"there is no such file, nor one in .*it"):
        stored(path, "other.csv")


def test_whole_numbers_stay_what_they_are(tmp_path):
    path = in_folder(FILES, tmp_path / "it")
    table(path / "labels.csv", "a/1.png,10", "a/2.png,2", "b/3.png,10")
    data = stored(path, "labels.csv")
    assert data.class_names == tuple(map(str, range(11)))
    assert [data.index.label(number) for number in range(3)] == [10, 2, 10]
    table(path / "labels.csv", "a/1.png,1000000", "a/2.png,2", "b/3.png,10")
    with pytest.raises(
        ValueError, match=r"run from 2 to 1000000; those of classes lie between 0 and"
    ):
        stored(path, "labels.csv")


def test_names_in_any_script_and_none(tmp_path):
    files = {"梨.png".encode(): b"1", b"\xff.png": b"2"}
    path = in_folder(files, tmp_path / "it")
    (path / "labels.csv").write_bytes(
        b"\xef\xbb\xbfname,label\n" + "梨.png,груша\n".encode() + b"\xff.png,\xfe\n"
    )
    assert contents(stored(path, "labels.csv")) == [("\\xfe", b"2"), ("груша", b"1")]
    strange = in_folder({b"\xff/1.png": b"1"}, tmp_path / "strange")
    assert stored(strange).class_names == ("\\xff",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,label\na/1.png,x\n", r"no columns 'name' and 'label' in its first line"),
        ("", r"no columns 'name' and 'label'"),
        ("name,label\na/1.png,x\na/1.png,y\n", r"gives a/1\.png two labels: x, y"),
        ("name,label\na/1.png,x\n", r"2 of 3 images .* no label: a/2\.png is not in .*l\.csv"),
        ('name,label\n"' + "x" * 200_000, r"l\.csv is no table: field larger"),
        ("name,label\na/1.png,\n", r"3 of 3 images .* no label"),
        ("name,label\na/1.png\n", r"3 of 3 images .* no label"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, text, problem):
    path = in_folder(FILES, tmp_path / "it")
    (path / "l.csv").write_text(text)
    with pytest.raises(ValueError, match=problem):
        stored(path, "l.csv")


def test_columns_beyond_their_names(tmp_path, monkeypatch):
    from diffussm.data.sources.parquet import Parquet

    path = in_parquet(tree(), tmp_path / "it")
    monkeypatch.setattr(Parquet, "label_names", lambda self, column: ("only",))
    with pytest.raises(ValueError, match=r"labels label of .* run from 0 to 1; .* between 0 and 0"):
        stored(path, "label")
    monkeypatch.setattr("diffussm.data.sources.parquet._label", lambda value: None)
    with pytest.raises(ValueError, match=r"8 of 8 images .* has none in the column label"):
        stored(path, "label")
