"""The same as `ssdkd results policy`, from a clone."""

from ssdkd_agents.commands.policy import run

if __name__ == "__main__":
    run()
