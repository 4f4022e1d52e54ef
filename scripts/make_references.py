"""The same as `ssdkd reference`, from a clone."""

from ssdkd_agents.commands.reference import run

if __name__ == "__main__":
    run()
