"""The same as `ssdkd search`, from a clone."""

from ssdkd_agents.commands.search import run

if __name__ == "__main__":
    run()
