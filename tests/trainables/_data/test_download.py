"""Downloads against a server on this machine: whole, or a sentence."""

import http.server
import io
import threading
import zipfile

import pytest

from tests.trainables._data.helpers import class_files
from trainables._data import DataError, load, omniglot, prepare

PLACE = "/python/"


def zipped(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def characters(alphabet, n):
    return [f"{alphabet}/character{i:02d}" for i in range(1, n + 1)]


@pytest.fixture
def pages():
    """Path -> bytes, what the server answers; anything else is a 404."""
    lists = {"train": "Greek/character01", "val": "Greek/character02", "test": "Thai/character01"}
    shape = {"images": 20, "size": (9, 9), "mode": "1"}
    background = class_files(characters("Greek", 3), prefix="images_background/", **shape)
    evaluation = class_files(characters("Thai", 2), prefix="images_evaluation/", **shape)
    return {
        f"{PLACE}images_background.zip": zipped(background),
        f"{PLACE}images_evaluation.zip": zipped(evaluation),
        **{f"/split/{word}.txt": text.encode() for word, text in lists.items()},
    }


@pytest.fixture
def server(pages, monkeypatch):
    """A server in the place of the official addresses; its list of requests."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path not in pages:
                self.send_error(404)
                return
            body = pages[self.path]
            self.send_response(200)
            whole = body if isinstance(body, bytes) else body[0]
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole if isinstance(body, bytes) else whole[: body[1]])

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http_server.serve_forever)
    thread.start()
    base = f"http://127.0.0.1:{http_server.server_port}"
    monkeypatch.setattr(omniglot, "ADDRESS", base + PLACE)
    monkeypatch.setattr(omniglot, "SPLIT_ADDRESS", base + "/split/")
    monkeypatch.setattr(omniglot, "ARCHIVES", {"images_background": 3, "images_evaluation": 2})
    yield asked
    http_server.shutdown()
    http_server.server_close()
    thread.join()


def files_of(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


WHOLE = [
    "images_background.zip",
    "images_evaluation.zip",
    *(f"splits/omniglot-vinyals/{word}.txt" for word in ("test", "train", "val")),
]


def test_what_prepare_brings_can_be_loaded(server, tmp_path, cache):
    root = tmp_path / "new" / "data"
    assert prepare("omniglot", root) == root
    assert files_of(root) == WHOLE
    assert load("omniglot", root=root).train.names[0] == "Greek/character01"
    assert len(server) == 5
    prepare("omniglot", root)
    assert len(server) == 5  # everything was there


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("images_evaluation.zip", b"<html>Sign in</html>", "answered with something that is no"),
        ("images_evaluation.zip", zipped({"a.png": b""}), "should hold 40 drawings and holds 1"),
        ("images_evaluation.zip", None, r"cannot be downloaded \(Not Found\)"),
    ],
)
def test_a_wrong_answer_is_a_sentence_and_leaves_nothing(
    server, pages, tmp_path, cache, name, answer, message
):
    if answer is None:
        del pages[PLACE + name]
    else:
        pages[PLACE + name] = answer
    with pytest.raises(DataError, match=message):
        prepare("omniglot", tmp_path / "root")
    assert files_of(tmp_path / "root") == ["images_background.zip"]


def test_a_broken_off_download_leaves_nothing(server, pages, tmp_path, cache):
    pages[f"{PLACE}images_background.zip"] = (pages[f"{PLACE}images_background.zip"], 500)
    with pytest.raises(DataError, match=r"broke off after 500 of|cannot be downloaded"):
        prepare("omniglot", tmp_path / "root")
    assert files_of(tmp_path / "root") == []


def test_a_damaged_download_is_noticed_by_its_checksum(server, pages, tmp_path, cache):
    data = bytearray(pages[f"{PLACE}images_background.zip"])
    data[80] ^= 0xFF
    pages[f"{PLACE}images_background.zip"] = bytes(data)
    with pytest.raises(DataError, match="arrived damaged"):
        prepare("omniglot", tmp_path / "root")
    assert files_of(tmp_path / "root") == []


def test_lists_come_all_or_none(server, pages, tmp_path, cache):
    del pages["/split/test.txt"]
    with pytest.raises(DataError, match=r"test\.txt cannot be downloaded"):
        prepare("omniglot", tmp_path / "root")
    assert files_of(tmp_path / "root") == WHOLE[:2]


def test_no_connection_says_what_to_put_where(monkeypatch, tmp_path, cache):
    monkeypatch.setattr(omniglot, "ADDRESS", "http://127.0.0.1:9/")
    with pytest.raises(DataError, match=r"cannot be downloaded .* put it at .*background\.zip"):
        prepare("omniglot", tmp_path)


def test_a_place_that_cannot_be_written(tmp_path, cache):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        prepare("omniglot", tmp_path / "file" / "data")
