"""The same as `ssdkd tune`, from a clone."""

from ssdkd_agents.commands.tune import run

if __name__ == "__main__":
    run()
