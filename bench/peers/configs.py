"""Configuration files of the rivals that take one. Each is a function of replicas, port and time scale."""

import json
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from bench.peers.scale import Interval

LITELLM_KEY = "sk-bench-0123456789abcdef0123456789abcdef"
"""LiteLLM does not start without a master key that is hard to guess; it never leaves this machine."""

HAPROXY = """\
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    option http-no-delay
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
frontend clients
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance leastconn
    default-server check inter {check_ms}ms
{servers}
"""

NGINX = """\
{user}worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000;
    upstream replicas {{
        least_conn;
{servers}
        keepalive 256;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""

HAPROXY_NEAR = 3
"""Weight of a replica in the proxy's own region; those of other regions have 1."""

HAPROXY_CHECK = Interval("check inter", 2.0, 0.001)
NGINX_FAIL = Interval("fail_timeout", 10.0)
LITELLM_COOLDOWN_S = 5.0


def authority(url: str) -> str:
    """``host:port`` of a URL."""
    return url.removeprefix("http://")


def haproxy(upstreams: Sequence[str], port: int, scale: float, near: int = 0) -> str:
    """``haproxy.cfg``; the first ``near`` of the replicas are preferred."""
    servers = "\n".join(
        f"    server r{i} {authority(url)}" + (f" weight {HAPROXY_NEAR}" if i < near else "")
        for i, url in enumerate(upstreams)
    )
    return HAPROXY.format(port=port, check_ms=HAPROXY_CHECK.units(scale), servers=servers)


def nginx(upstreams: Sequence[str], port: int, scale: float, directory: Path) -> str:
    """``nginx.conf``; it takes times of failed servers in whole seconds."""
    fail_s = NGINX_FAIL.units(scale)
    servers = "\n".join(
        f"        server {authority(url)} max_fails=1 fail_timeout={fail_s}s;" for url in upstreams
    )
    # As root, it would hand its files to a user who cannot read them.
    user = f"user {pwd.getpwuid(0).pw_name};\n" if os.geteuid() == 0 else ""
    return NGINX.format(user=user, port=port, servers=servers, directory=directory)


def litellm(upstreams: Sequence[str], model: str, scale: float) -> str:
    """``config.yaml``; JSON is YAML."""
    parameters = [
        {"model": f"hosted_vllm/{model}", "api_base": f"{url}/v1", "api_key": "none"} for url in upstreams
    ]
    config = {
        "model_list": [{"model_name": model, "litellm_params": one} for one in parameters],
        "router_settings": {
            "routing_strategy": "least-busy",
            "cooldown_time": LITELLM_COOLDOWN_S * scale,
        },
        "litellm_settings": {"request_timeout": 600, "set_verbose": False, "json_logs": True},
        "general_settings": {"master_key": LITELLM_KEY},
    }
    return json.dumps(config, indent=1)
