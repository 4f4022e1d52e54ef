#!/usr/bin/env bash
# Ray 2.60.0: whoever has once begun Ray on a machine alone cannot connect by HOST:PORT to a cluster that he starts there later.
#
# The good guess: a cluster that `ray start --head` begins is the same whatever ran and ended before, and
# ray.init(address="HOST:PORT") reaches it as ray.init(address="auto") does.
#
# The cause: ray.init() without an address writes a token to ~/.ray/auth_token. `ray start --head` asks everybody for that
# token as soon as the file is there, and ray.init(address="auto") sends it; with an address in words it is sent only where
# RAY_AUTH_MODE=token is set, which a cluster that asks for none does not mind.
#
# Seen, on one machine as one user: before the token "auto" and the address connect; with it "auto" connects, the address
# is a ConnectionError after half a minute, and connects with RAY_AUTH_MODE=token.
set -euo pipefail
folder=$(mktemp -d)
trap '"$folder/venv/bin/ray" stop --force > /dev/null 2>&1; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "ray==2.60.0" 2>/dev/null
export HOME="$folder" PATH="$folder/venv/bin:$PATH" RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH
cd "$folder"

connects() {  # ADDRESS → connected, or the name of the error
    python - "$1" 2> /dev/null <<'PYTHON'
import sys
import ray
try:
    ray.init(address=sys.argv[1], logging_level="error")
    print("connected")
except Exception as error:
    print(type(error).__name__)
PYTHON
}

head="$(python -c 'import ray; print(ray.util.get_node_ip_address())'):6390"
start() { ray start --head --port 6390 --num-cpus 1 --include-dashboard false > /dev/null 2>&1; }

start
before="$(connects auto) $(connects "$head")"
ray stop --force > /dev/null 2>&1
python -c 'import ray; ray.init(num_cpus=1, include_dashboard=False, logging_level="error")' > /dev/null 2>&1
start
after="$(connects auto) $(connects "$head") $(RAY_AUTH_MODE=token connects "$head")"
echo "before: $before; after: $after"
[ "$before; $after" = "connected connected; connected ConnectionError connected" ] || { echo "this has changed"; exit 1; }
