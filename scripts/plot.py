"""The same as `ssdkd results plot`, from a clone."""

from ssdkd_agents.commands.plot import run

if __name__ == "__main__":
    run()
