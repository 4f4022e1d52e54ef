"""The same as `ssdkd results compare`, from a clone."""

from ssdkd_agents.commands.compare import run

if __name__ == "__main__":
    run()
