"""`embedcache probe`: the group of every probe's command."""

from embedcache_cli import probe_all, probe_heads, probe_linear, probe_patch
from embedcache_cli.probe import app

__all__ = ["app"]

for command in (probe_all, probe_linear, probe_patch):
    app.command(command.NAME)(command.command)
for name, head in probe_heads.COMMANDS.items():
    app.command(name)(head)
