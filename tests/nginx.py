"""A real nginx for as long as a block lasts, in front of workers or backends.

Debian's package; `make test` sees to it. Where there is none the same tests run without a front,
since what they promise does not depend on it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")

# Started by root, nginx would work as a user who may not enter the folders of a test.
USER = "user root;" if os.geteuid() == 0 else ""

CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_http_version 1.1;
  proxy_buffering off;
  proxy_connect_timeout 2s;
  proxy_set_header Host $http_host;
  proxy_set_header Connection "";
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
{servers}
}}
"""
SERVER = """
  upstream group{number} {{ {members} }}
  server {{ listen 127.0.0.1:{port} sndbuf=64k; location / {{ proxy_pass http://group{number}; }} }}
"""


@asynccontextmanager
async def fronts(groups: Sequence[Sequence[str]], folder: Path) -> AsyncIterator[list[str]]:
    """One address for each group of servers; requests go round among the members of a group.

    Without nginx it is the address of each group's first member.
    """
    if NGINX is None:
        yield [group[0] for group in groups]
        return
    ports = [free_port() for _ in groups]
    servers = "".join(
        SERVER.format(
            number=number,
            port=port,
            members=" ".join(f"server {url.removeprefix('http://')};" for url in group),
        )
        for number, (port, group) in enumerate(zip(ports, groups, strict=True))
    )
    async with running(servers, ports, folder):
        yield [f"http://127.0.0.1:{port}" for port in ports]


@asynccontextmanager
async def running(servers: str, ports: Sequence[int], folder: Path) -> AsyncIterator[None]:
    """nginx with these servers, from the moment that it listens on all of these ports."""
    assert NGINX is not None
    folder.mkdir(parents=True)
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, user=USER, servers=servers))
    process = await asyncio.create_subprocess_exec(
        NGINX,
        *("-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        for port in ports:
            await _listens(port, process, folder / "error.log")
        yield
    finally:
        process.terminate()
        await process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def _listens(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
