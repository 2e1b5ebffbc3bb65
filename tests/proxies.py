"""The reverse proxies of `deploy/`, started as they ship: only names, ports and paths are changed.

nginx reads `deploy/nginx.conf` inside a main file like Debian's; Caddy's JSON is what Caddy itself
makes of `deploy/Caddyfile`. Both speak https with a certificate of the test.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from conftest import REPOSITORY
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DEPLOY = REPOSITORY / "deploy"
NOBODY = "127.0.0.1:9"  # the discard port, where nothing listens
GALLERY_NAME, WORKER_NAME = "films.localhost", "localhost"
# Debian keeps servers where only root looks for commands.
SEARCH_PATH = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))


@dataclass(frozen=True)
class Sites:
    """What a proxy is told: whom to reach, and under which names and ports it is reached."""

    worker_addresses: tuple[str, ...]
    gallery_address: str
    http_port: int
    https_port: int
    worker_name: str = WORKER_NAME
    gallery_name: str = GALLERY_NAME


@dataclass(frozen=True)
class Proxy:
    """A proxy that serves."""

    sites: Sites
    folder: Path
    trust: ssl.SSLContext

    @property
    def worker_url(self) -> str:
        return f"https://{self.sites.worker_name}:{self.sites.https_port}"

    @property
    def gallery_url(self) -> str:
        return f"https://{self.sites.gallery_name}:{self.sites.https_port}"

    @property
    def authority_path(self) -> Path:
        return self.folder / "authority.pem"

    @property
    def logs(self) -> str:
        """All that it has written, but for what it was given to read."""
        files = (path for path in self.folder.rglob("*") if path.suffix in {".log", ".out"})
        return "\n".join(path.read_text(errors="replace") for path in files)


def command(name: str) -> str:
    """The path of an installed program; `make test` has brought it."""
    found = shutil.which(name, path=SEARCH_PATH)
    assert found, f"{name} is missing: make test installs it as root; Debian: apt install {name}"
    return found


def tracked_files() -> list[str]:
    """The repository as somebody gets it who clones it: paths, relative to its root."""
    # Where CI checks out, the files are another user's, which git takes for an attack.
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(git, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.split("\0") if path]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def substitute(text: str, changes: Mapping[str, str]) -> str:
    """Each change must find something to change, or it is not the shipped file that is tested."""
    for old, new in changes.items():
        assert old in text, f"the shipped file has no {old!r}"
        text = text.replace(old, new)
    return text


# -- nginx ---------------------------------------------------------------------------------------

# As Debian's nginx.conf, but in one process that ends with us, and with its own folder for itself.
NGINX_MAIN = """
{user}worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/main-error.log;
events {{ worker_connections 768; }}
http {{
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    gzip on;
    gzip_types application/json video/mp4;
    access_log {folder}/other-access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {site};
}}
"""


def nginx_command(folder: Path, sites: Sites) -> list[str]:
    """Write what nginx reads; the command that runs it."""
    servers = "\n    ".join(f"server {address};" for address in sites.worker_addresses)
    site = substitute(
        (DEPLOY / "nginx.conf").read_text(),
        {
            "server 127.0.0.1:10000;": servers,
            "127.0.0.1:8080": sites.gallery_address,
            "    listen [::]:80;\n": "",
            "    listen [::]:443 ssl http2;\n": "",
            "listen 80;": f"listen 127.0.0.1:{sites.http_port};",
            "listen 443 ": f"listen 127.0.0.1:{sites.https_port} ",
            "worker.example.org": sites.worker_name,
            "films.example.org": sites.gallery_name,
            "/etc/letsencrypt/live/rangegram": str(folder),
            "/var/log/nginx/": f"{folder}/",
        },
    )
    (folder / "site.conf").write_text(site)
    user = "user root;\n" if os.geteuid() == 0 else ""
    main = NGINX_MAIN.format(user=user, folder=folder, site=folder / "site.conf")
    (folder / "nginx.conf").write_text(main)
    main_log = str(folder / "main-error.log")
    return [command("nginx"), "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", main_log]


# -- Caddy ---------------------------------------------------------------------------------------


def caddy_command(folder: Path, sites: Sites, caddyfile: Path = DEPLOY / "Caddyfile") -> list[str]:
    """Write what Caddy reads; the command that runs it."""
    environ = {
        "WORKER_NAME": sites.worker_name,
        "WORKER_ADDRESSES": " ".join(sites.worker_addresses),
        "GALLERY_NAME": sites.gallery_name,
        "GALLERY_ADDRESS": sites.gallery_address,
    }
    adapted = subprocess.run(
        [command("caddy"), "adapt", "--config", str(caddyfile)],
        env=environ,
        capture_output=True,
        check=True,
    )
    config: dict[str, Any] = json.loads(adapted.stdout)
    config["admin"] = {"disabled": True, "config": {"persist": False}}
    web = config["apps"]["http"]
    web["http_port"], web["https_port"] = sites.http_port, sites.https_port
    (server,) = web["servers"].values()
    assert server["listen"] in ([":443"], [f":{sites.https_port}"])
    server["listen"] = [f"127.0.0.1:{sites.https_port}"]
    # The names are public ones where it ships; here it must not ask anybody for a certificate.
    pair = {"certificate": str(folder / "fullchain.pem"), "key": str(folder / "privkey.pem")}
    config["apps"]["tls"] = {"certificates": {"load_files": [pair]}}
    (folder / "caddy.json").write_text(json.dumps(config))
    return [command("caddy"), "run", "--config", str(folder / "caddy.json")]


COMMANDS: dict[str, Callable[[Path, Sites], list[str]]] = {
    "nginx": nginx_command,
    "caddy": caddy_command,
}


# -- either --------------------------------------------------------------------------------------


@asynccontextmanager
async def running_proxy(kind: str, folder: Path, sites: Sites) -> AsyncIterator[Proxy]:
    """The shipped configuration at work; it ends with the block."""
    folder.mkdir()
    proxy = Proxy(sites, folder, write_certificate(folder, (sites.worker_name, sites.gallery_name)))
    async with running(COMMANDS[kind](folder, sites), folder, sites):
        yield proxy


@asynccontextmanager
async def running(arguments: list[str], folder: Path, sites: Sites) -> AsyncIterator[None]:
    """A proxy's process, from when it listens to the end of the block."""
    environ = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    output_path = folder / "process.out"
    with output_path.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *arguments, env=environ, stdout=output, stderr=output
        )
    try:
        while not await _listens(sites.https_port):
            assert process.returncode is None, output_path.read_text()
            await asyncio.sleep(0.02)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def write_certificate(folder: Path, names: tuple[str, ...]) -> ssl.SSLContext:
    """A certificate for these names where certbot puts one; the context that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Rangegram tests")])
    now = datetime.now(UTC)
    alternatives = [x509.DNSName(each) for each in names]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([*alternatives, x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    for file_name in ("fullchain.pem", "authority.pem"):
        (folder / file_name).write_bytes(pem)
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return ssl.create_default_context(cafile=str(folder / "authority.pem"))
