"""The same as `ssdkd teacher`, from a clone."""

from ssdkd_agents.commands.teacher import run

if __name__ == "__main__":
    run()
