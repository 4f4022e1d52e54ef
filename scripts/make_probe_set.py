"""The same as `ssdkd probe`, from a clone."""

from ssdkd_agents.commands.probe import run

if __name__ == "__main__":
    run()
