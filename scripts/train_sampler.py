"""The same as `ssdkd train`, from a clone."""

from ssdkd_agents.commands.train import run

if __name__ == "__main__":
    run()
