"""The same as `ssdkd results replay`, from a clone."""

from ssdkd_agents.commands.replay import run

if __name__ == "__main__":
    run()
