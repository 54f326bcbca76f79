"""Made image files, and the same images stored in every way that people store them."""

import io
import json
import os
import tarfile
import zipfile
from collections import defaultdict

import lmdb
import numpy as np
import PIL.Image
import pyarrow
import skimage.data
from pyarrow import parquet

from diffussm.data import DataConfig, load_data

PHOTOGRAPHS = {
    "astronaut": skimage.data.astronaut,
    "chelsea": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
}


def photograph(name, step=1):
    """One of scikit-image's bundled photographs, every `step`-th pixel."""
    return PIL.Image.fromarray(np.ascontiguousarray(PHOTOGRAPHS[name]()[::step, ::step]))


def encoded(picture, kind="PNG", **options):
    """The file of a picture."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(number, size=(20, 24)):
    """A picture that no other number has."""
    levels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return PIL.Image.fromarray(levels)


def tree():
    """Files by path: two classes, awkward names, and things that are no images."""
    names = ["apples/1.png", "apples/2.PNG", "apples/a b/#3.png", "pears/1.png", "pears/梨.png"]
    names += ["pears/" + "long" * 40 + ".png", "pears/груша/ё.png"]
    files = {name.encode(): encoded(noise(number)) for number, name in enumerate(names)}
    files[b"pears/\xff\xfe.png"] = encoded(noise(99))  # no UTF-8
    files |= dict.fromkeys((b"apples/list.txt", b"apples/.hidden.png", b"png"), b"no image")
    return files | {b".trash/1.png": b"deleted", b"__MACOSX/apples/._1.png": b"a Mac's notes"}


def in_folder(files, path):
    for name, data in files.items():
        target = path / os.fsdecode(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return path


def in_zip(files, path, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            try:
                member = zipfile.ZipInfo(name.decode())
            except UnicodeDecodeError:
                member = OldName(name.decode("cp437"))
            member.extra = b"UT\5\0\1abcd"  # a time, as Info-ZIP notes it
            archive.writestr(member, data, method)
    return path


class OldName(zipfile.ZipInfo):
    """Named as old programs do it: by bytes, without a note of what they mean."""

    def _encodeFilenameFlags(self):
        return self.filename.encode("cp437"), 0


def in_tar(files, path, format=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(os.fsdecode(name))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def by_class(files):
    """The files of each first folder, their names beginning below it."""
    classes = defaultdict(dict)
    for name, data in files.items():
        folder, _, rest = name.partition(b"/")
        classes[folder.decode()][rest] = data
    return {name: classes[name] for name in ("apples", "pears")}


def in_tar_of_tars(files, path):
    """As ILSVRC2012_img_train.tar: one tar a class, each without folders."""
    inner = {}
    for name, part in by_class(files).items():
        flat = {key.replace(b"/", b"-"): data for key, data in part.items()}
        inner[f"{name}.tar".encode()] = in_tar(flat, path.with_suffix(".inner")).read_bytes()
    return in_tar(inner, path)


def in_tars(files, path):
    """One tar a class, in a folder."""
    path.mkdir()
    for name, part in by_class(files).items():
        flat = {key.replace(b"/", b"-"): data for key, data in part.items()}
        in_tar(flat, path / f"{name}.tar")
    return path


def in_shards(files, path):
    """Any cut into several tars, with the folders inside."""
    path.mkdir()
    items = list(files.items())
    for number in range(3):
        in_tar(dict(items[number::3]), path / f"part-{number}.tar")
    return path


def in_zips(files, path):
    """One zip a class, in a folder."""
    path.mkdir()
    for name, part in by_class(files).items():
        flat = {key.replace(b"/", b"-"): data for key, data in part.items()}
        in_zip(flat, path / f"{name}.zip")
    return path


def wrapped(files, path):
    """A zip of the folder itself rather than of what is in it."""
    return in_zip({b"data/train/" + name: data for name, data in files.items()}, path)


def images_of(files):
    """Those that are images."""
    good = (b".png", b".PNG")
    return {
        name: data
        for name, data in files.items()
        if name.endswith(good) and not name.startswith((b".", b"__")) and b"/." not in name
    }


def in_lmdbs(files, path):
    """LSUN's way: a database a class; keys are no names of files."""
    for name, part in by_class(images_of(files)).items():
        folder = path / name
        folder.mkdir(parents=True)
        with lmdb.open(str(folder), map_size=2**24) as database, database.begin(write=True) as to:
            for number, data in enumerate(part.values()):
                to.put(b"%040x" % number, data)
    return path


def in_parquet(files, path, rows=3):
    """Hugging Face's way: two files, small row groups, labels as numbers with names."""
    path.mkdir()
    items = list(images_of(files).items())
    classes = ["apples", "pears"]
    note = {"info": {"features": {"label": {"names": classes, "_type": "ClassLabel"}}}}
    for number, some in enumerate([items[:4], items[4:]]):
        data = {
            "image": [{"bytes": data, "path": None} for _, data in some],
            "label": [classes.index(name.partition(b"/")[0].decode()) for name, _ in some],
            "name": [name.partition(b"/")[0].decode() for name, _ in some],
        }
        table = pyarrow.table(data).replace_schema_metadata({"huggingface": json.dumps(note)})
        parquet.write_table(table, path / f"train-{number}.parquet", row_group_size=rows)
    return path


def in_webdataset(files, path):
    """Two tars of numbered samples: an image, its class's number and a JSON file each."""
    path.mkdir()
    items = list(images_of(files).items())
    for number, some in enumerate([items[:4], items[4:]]):
        members = {}
        for sample, (name, data) in enumerate(some):
            key, folder = b"%03d%05d" % (number, sample), name.partition(b"/")[0].decode()
            label = ["apples", "pears"].index(folder)
            members |= {key + b".cls": b"%d\n" % label, key + b".jpg": data}
            members[key + b".json"] = json.dumps({"kind": folder, "number": label}).encode()
        in_tar(members, path / f"shard-{number}.tar", tarfile.USTAR_FORMAT)
    return path


def deflated(files, path):
    return in_zip(files, path, zipfile.ZIP_DEFLATED)


def pax(files, path):
    return in_tar(files, path, tarfile.PAX_FORMAT)


FORMATS = {
    "folder": (in_folder, "folders"),
    "a.zip": (in_zip, "folders"),
    "deflated.ZIP": (deflated, "folders"),
    "wrapped.zip": (wrapped, "folders"),
    "zips": (in_zips, "folders"),
    "gnu.tar": (in_tar, "folders"),
    "pax.tar": (pax, "folders"),
    "nested.tar": (in_tar_of_tars, "folders"),
    "tars": (in_tars, "folders"),
    "shards": (in_shards, "folders"),
    "webdataset": (in_webdataset, "kind"),
    "lmdb": (in_lmdbs, "folders"),
    "parquet": (in_parquet, "label"),
    "parquet-text": (in_parquet, "name"),
}
"""How the tree is stored, and what `data.labels` then is."""


def stored(path, labels="folders", **options):
    """The data set of what lies at `path`."""
    return load_data(DataConfig(name="images", path=str(path), labels=labels, size=8, **options))


def contents(data):
    """The file of every image with the name of its class, sorted."""
    places = [data.index.place(number) for number in range(len(data))]
    names = data.class_names or ("",)
    labels = [names[data.index.label(number)] for number in range(len(data))]
    return sorted(zip(labels, map(data.source.read, places), strict=True))
