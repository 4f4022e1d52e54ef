"""The same as `ssdkd results rank`, from a clone."""

from ssdkd_agents.commands.rank import run

if __name__ == "__main__":
    run()
