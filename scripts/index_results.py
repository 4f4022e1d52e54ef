"""The same as `ssdkd results index`, from a clone."""

from ssdkd_agents.commands.index import run

if __name__ == "__main__":
    run()
