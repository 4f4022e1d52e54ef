"""The same as `ssdkd evaluate`, from a clone."""

from ssdkd_agents.commands.evaluate import run

if __name__ == "__main__":
    run()
