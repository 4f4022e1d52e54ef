"""The same as `ssdkd export`, from a clone."""

from ssdkd_agents.commands.export import run

if __name__ == "__main__":
    run()
