"""The same as `ssdkd benchmark`, from a clone."""

from ssdkd_agents.commands.benchmark import run

if __name__ == "__main__":
    run()
