#!/usr/bin/env bash
# Ray 2.60.0: whoever has once begun Ray on a machine alone cannot connect by HOST:PORT to a cluster that he starts there later; and
# where he tells Ray to send his token to a cluster that asks for none, tasks are done and actors die at once.
#
# The good guess: a cluster that `ray start --head` begins is the same whatever ran and ended before; ray.init(address="HOST:PORT")
# reaches it as ray.init(address="auto") does; and a token that nobody asks for does no harm.
#
# The cause: ray.init() without an address writes a token to ~/.ray/auth_token. `ray start --head` asks everybody for that
# token as soon as the file is there, and ray.init(address="auto") sends it; with an address in words it is sent only where
# RAY_AUTH_MODE=token is set. A driver in that mode asks for the token itself, which a cluster without one does not send
# when it asks the driver whether an actor is still wanted: the actor is taken for one that nobody holds any more.
#
# Seen, on one machine as one user, for ("auto", the address, the address with RAY_AUTH_MODE=token), tasks and actors:
#   a cluster started before there is a token: all work, but actors with the token, an ActorDiedError;
#   one started after ray.init() has made a token: "auto" and the token work, the address is a ConnectionError after half a minute.
set -euo pipefail
folder=$(mktemp -d)
trap '"$folder/venv/bin/ray" stop --force > /dev/null 2>&1; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "ray==2.60.0" 2>/dev/null
export HOME="$folder" PATH="$folder/venv/bin:$PATH" RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH
cd "$folder"

does() {  # ADDRESS → what a task and an actor answer, or the name of the error
    python - "$1" 2> /dev/null <<'PYTHON'
import sys
import ray


@ray.remote
def task():
    return "task"


@ray.remote
class Actor:
    def answer(self):
        return "actor"


try:
    ray.init(address=sys.argv[1], logging_level="error", log_to_driver=False)
    print(ray.get(task.remote()), end=" ")
    actor = Actor.remote()
    print(ray.get(actor.answer.remote()))
except Exception as error:
    print(type(error).__name__)
PYTHON
}

head="$(python -c 'import ray; print(ray.util.get_node_ip_address())'):6390"
start() { ray start --head --port 6390 --num-cpus 1 --include-dashboard false > /dev/null 2>&1; }
all() { echo "$(does auto), $(does "$head"), $(RAY_AUTH_MODE=token RAY_AUTH_TOKEN="$token" does "$head")"; }

token=00112233445566778899aabbccddeeff
start
before=$(all)
ray stop --force > /dev/null 2>&1
python -c 'import ray; ray.init(num_cpus=1, include_dashboard=False, logging_level="error")' > /dev/null 2>&1
token=$(cat .ray/auth_token)
start
after=$(all)
echo "before: $before; after: $after"
[ "$before" = "task actor, task actor, task ActorDiedError" ] || { echo "this has changed"; exit 1; }
[ "$after" = "task actor, ConnectionError, task actor" ] || { echo "this has changed"; exit 1; }
