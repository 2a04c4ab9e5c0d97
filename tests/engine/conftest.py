import functools
import http.server
import os
import threading
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def trained_once(request, tmp_path_factory):
    """What the test file's ``Trained`` leaves in a folder, made once."""
    here = Path.cwd()
    folder = tmp_path_factory.mktemp("trained")
    trained = request.module.Trained(folder)
    yield folder, trained
    os.chdir(here)


@pytest.fixture
def trained(trained_once, monkeypatch):
    """That, with its folder made the current one."""
    folder, trained = trained_once
    monkeypatch.chdir(folder)
    return trained


@pytest.fixture
def served(tmp_path):
    """The folder that ``server`` serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture
def asked():
    """The paths that were asked for."""
    return []


@pytest.fixture
def server(served, asked, tmp_path, monkeypatch):
    """The address of a folder over HTTP, with torch's cache elsewhere."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append(self.path)
            if "short" not in self.path:
                return super().do_GET()
            content = (served / self.path[1:]).read_bytes()  # the line breaks half-way
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])

    handler = functools.partial(Handler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()
