"""The same as `ssdkd distill`, from a clone."""

from ssdkd_agents.commands.distill import run

if __name__ == "__main__":
    run()
